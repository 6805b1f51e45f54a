#include "kernels/cuda/round.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 512;

// One block a row.
__global__ void SwiGluKernel(const float* gate, const float* up, int32_t cols, float* out,
                             Rounding rounding) {
  const int64_t row = blockIdx.x;
  float* const to = out + row * cols;
  for (int32_t c = threadIdx.x; c < cols; c += kThreads) {
    const float g = gate[row * cols + c];
    to[c] = g / (1.0f + expf(-g)) * up[row * cols + c];
  }
  if (rounding.values != nullptr) RoundRow<kThreads>(to, cols, rounding, row);
}

}  // namespace

void LaunchSwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out,
                  const Rounding& rounding, Stream stream) {
  BATON_LAUNCH(SwiGluKernel, rows, kThreads, 0, stream, gate, up, cols, out, rounding);
}

}  // namespace baton::kernels::cuda
