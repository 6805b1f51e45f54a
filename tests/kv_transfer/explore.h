#pragma once

// Runs many schedules, and tells which went wrong.

#include <cstdint>
#include <string>

namespace baton::kv_transfer {

struct Exploration {
  uint64_t schedules = 0;
  int64_t handoffs = 0, succeeded = 0;
  uint64_t bad_seed = 0;  // of the first schedule that broke a law; none were run after it
  std::string violation;  // empty when none did
};

// The seeds first_seed, first_seed + stride, ...
Exploration Explore(uint64_t first_seed, uint64_t stride, uint64_t schedules);

}  // namespace baton::kv_transfer
