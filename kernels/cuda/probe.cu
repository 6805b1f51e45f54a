// Products in registers alone: what the tensor cores can do by mma.sync.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {
namespace {

constexpr int kChains = 8;  // products of a warp that do not wait for each other

__global__ void ProbeKernel(int32_t iterations, float* out) {
  float sums[kChains][4] = {};
  const uint32_t number = Pair<BFloat16>(1.0f + static_cast<float>(threadIdx.x), 0.5f);
  const uint32_t a[4] = {number, number ^ 0x00100010u, number ^ 0x00210021u, number};
  for (int32_t i = 0; i < iterations; ++i) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) MultiplyAdd<BFloat16>(sums[c], a, number, number ^ 0x0013u);
  }
  float total = 0;
#pragma unroll
  for (int c = 0; c < kChains; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) total += sums[c][i];
  }
  out[int64_t{blockIdx.x} * kProbeThreads + threadIdx.x] = total;
}

}  // namespace

double LaunchTensorProbe(int32_t blocks, int32_t iterations, float* out, Stream stream) {
  BATON_LAUNCH(ProbeKernel, blocks, kProbeThreads, 0, stream, iterations, out);
  return 2.0 * 16 * 8 * 16 * kChains * iterations * (kProbeThreads / 32) * blocks;
}

}  // namespace baton::kernels::cuda
