#pragma once

#include <string_view>

namespace baton::router {

// A string_view of Boost's (Beast and JSON give them) as the standard's.
template <typename BoostView>
std::string_view View(BoostView text) {
  return {text.data(), text.size()};
}

}  // namespace baton::router
