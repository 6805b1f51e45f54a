#pragma once

// Small change of this room.

#include <cstdint>
#include <limits>

namespace baton::planner {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Counts in formulas of doubles.
constexpr double D(int64_t value) { return static_cast<double>(value); }

}  // namespace baton::planner
