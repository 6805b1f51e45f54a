#pragma once

// A file's weights as the kernels want them. Plain computing on the host.

#include <cstddef>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace baton::kernels::cuda {

struct PackedWeights {
  Weights shape;  // without its pointers
  std::vector<std::byte> values;
  std::vector<Scale> scales;
};

// InvalidArgument as CheckHostMatrix, and for sides beyond 2^30.
absl::StatusOr<PackedWeights> PackWeights(const HostMatrix& host);

}  // namespace baton::kernels::cuda
