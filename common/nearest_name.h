#pragma once

#include <span>
#include <string>
#include <string_view>

namespace baton {

// The known name with the smallest edit distance to `unknown`, for "did you mean" in errors about
// flags, configuration keys, JSON fields and models. "" when nothing is near: more than a third
// of the letters differ, where two (one in names of less than five letters) may always.
std::string NearestName(std::string_view unknown, std::span<const std::string> known);

// The end of such an error: "; did you mean 'temperature'?", or "" when nothing is near.
std::string DidYouMean(std::string_view unknown, std::span<const std::string> known);

}  // namespace baton
