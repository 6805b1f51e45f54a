#include "kernels/cuda/round.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// One block a row. `out` may be `x`: each thread writes what it alone has read, after all have
// summed.
__global__ void RmsNormKernel(const float* x, const float* weight, int32_t cols, float epsilon,
                              float* out, Rounding rounding) {
  __shared__ float sums[kThreads / 32];
  const float* from = x + int64_t{blockIdx.x} * cols;
  float* to = out + int64_t{blockIdx.x} * cols;
  float sum = 0;
  for (int32_t c = threadIdx.x; c < cols; c += kThreads) sum = fmaf(from[c], from[c], sum);
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < kThreads / 32; ++i) total += sums[i];
  const float factor = 1.0f / sqrtf(total / static_cast<float>(cols) + epsilon);
  for (int32_t c = threadIdx.x; c < cols; c += kThreads) to[c] = from[c] * factor * weight[c];
  if (rounding.values != nullptr) RoundRow<kThreads>(to, cols, rounding, blockIdx.x);
}

}  // namespace

void LaunchRmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols, float epsilon,
                   float* out, const Rounding& rounding, Stream stream) {
  BATON_LAUNCH(RmsNormKernel, rows, kThreads, 0, stream, x, weight, cols, epsilon, out, rounding);
}

}  // namespace baton::kernels::cuda
