#pragma once

// Boost's string_view, which Beast and JSON give, as the standard's.

#include <boost/core/detail/string_view.hpp>
#include <string_view>

namespace baton::router {

inline std::string_view View(boost::core::string_view text) { return {text.data(), text.size()}; }

}  // namespace baton::router
