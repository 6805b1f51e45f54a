#pragma once

#include <string_view>

namespace baton {

// Boost's strings and string_views (Beast and JSON give them) as the standard's view of the same
// characters.
template <typename BoostString>
std::string_view View(const BoostString& text) {
  return {text.data(), text.size()};
}

}  // namespace baton
