#include <cmath>

#include "kernels/reference/reference_ops.h"

namespace baton::kernels {

void ReferenceOps::SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols,
                          float* out) {
  for (int64_t i = 0; i < int64_t{rows} * cols; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1 + std::exp(-g)) * up[i]);
  }
}

}  // namespace baton::kernels
