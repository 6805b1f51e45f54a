#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void SwiGluKernel(const float* gate, const float* up, int64_t count, float* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float g = gate[i];
  out[i] = g / (1.0f + expf(-g)) * up[i];
}

}  // namespace

void LaunchSwiGlu(const float* gate, const float* up, int64_t count, float* out, Stream stream) {
  const auto blocks = static_cast<uint32_t>((count + kThreads - 1) / kThreads);
  BATON_LAUNCH(SwiGluKernel, blocks, kThreads, 0, stream, gate, up, count, out);
}

}  // namespace baton::kernels::cuda
