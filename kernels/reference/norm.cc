#include <cmath>

#include "kernels/reference/reference_ops.h"

namespace baton::kernels {

void ReferenceOps::RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols,
                           float epsilon, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* input = x + r * cols;
    double squares = 0;
    for (int32_t c = 0; c < cols; ++c) squares += double{input[c]} * input[c];
    const double factor = 1 / std::sqrt(squares / cols + epsilon);
    for (int32_t c = 0; c < cols; ++c) {
      out[r * cols + c] = static_cast<float>(input[c] * factor * weight[c]);
    }
  }
}

}  // namespace baton::kernels
