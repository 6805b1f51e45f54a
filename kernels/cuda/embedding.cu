#include "kernels/cuda/weight_value.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// One block a token.
__global__ void EmbedKernel(Weights table, const int32_t* tokens, float* out) {
  const int64_t row = tokens[blockIdx.x];
  float* to = out + int64_t{blockIdx.x} * table.cols;
  for (int32_t c = threadIdx.x; c < table.cols; c += kThreads) to[c] = WeightValue(table, row, c);
}

}  // namespace

void LaunchEmbed(const Weights& table, const int32_t* tokens, int32_t count, float* out,
                 Stream stream) {
  BATON_LAUNCH(EmbedKernel, count, kThreads, 0, stream, table, tokens, out);
}

}  // namespace baton::kernels::cuda
