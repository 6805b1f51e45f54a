#pragma once

// A derivation step by step, as a person would write it down: every number that goes in, every
// formula with its values, every result.

#include <string>

#include "planner/ratio.h"

namespace baton::planner {

// Lines with newlines. `answer` is AnswerRatio's for `question`.
std::string ExplainRatio(const RatioQuestion& question, const RatioAnswer& answer);

// "17.2 ms", "0.910 s", "12.5 min"; "never" for infinity. "140.0 GB", "327,680 bytes".
std::string SecondsText(double seconds);
std::string BytesText(double bytes);

}  // namespace baton::planner
