#pragma once

#include <string>
#include <string_view>

namespace baton::router {

// "%2F" and the like in a URL's path become bytes. Escapes that are not sound stay as they are.
std::string PercentDecode(std::string_view text);

}  // namespace baton::router
