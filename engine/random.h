#pragma once

// Randomness as a function of (seed, position), so that a replay on another machine draws the same
// token: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

#include <array>
#include <cstdint>

namespace baton::engine {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// In [0, 1), a multiple of 2^-53.
double UniformAt(uint64_t seed, uint64_t position);

}  // namespace baton::engine
