#pragma once

// Weights without meaning: speed does not depend on them, so long as they are sound.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/dtype.h"

namespace baton::bench {

// rows * cols elements as a model file holds them: random quants, and scales and values that are
// finite and of about 1/30. cols is a multiple of the dtype's block. The same seed, the same bytes.
std::vector<std::byte> RandomWeights(DType dtype, int64_t rows, int64_t cols, uint64_t seed);

// Evenly distributed in [-1, 1).
std::vector<float> RandomActivations(int64_t count, uint64_t seed);

}  // namespace baton::bench
