// The next token of each row of logits, as engine/sampler.h gives it, to the bit: the same float
// operations, and sums in the same order. A block draws for a row. What needs more room than a
// block has is left to the host, as kLeftToHost.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kLanes = 4;  // of a sum

struct Shared {
  uint64_t candidates[kMostCandidates];
  double lane_sums[kMostVocab / kSumBlock * kLanes];
  double sums[kMostVocab / kSumBlock];
  float weights[kSumBlock];  // of the sorted candidates, or of the block that is drawn from
  uint32_t histogram[256];
  float best_of[kWarps];
  int32_t index_of[kWarps];
  uint32_t count;
  uint32_t prefix;
  uint32_t wanted;
};
static_assert(kMostCandidates <= kSumBlock && kMostCandidates >= kThreads);

// Greater numbers to greater integers; both zeros to one. Not for NaN.
__device__ uint32_t Ordered(float value) {
  const uint32_t bits = __float_as_uint(__fadd_rn(value, 0.0f));
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float FromOrdered(uint32_t ordered) {
  return __uint_as_float((ordered >> 31) != 0 ? ordered & 0x7fffffffu : ~ordered);
}

// engine/softmax.cc's.
__device__ float SoftmaxWeight(float logit, float best, float temperature) {
  const float x = __fdiv_rn(__fsub_rn(logit, best), temperature);
  if (!(x > -87.0f)) return 0;
  constexpr float kRoundToInteger = 0x1.8p23f;
  const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), kRoundToInteger), kRoundToInteger);
  const float r =
      __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
  float sum = 1.0f / 5040;
  const float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
#pragma unroll
  for (int i = 0; i < 7; ++i) sum = __fadd_rn(__fmul_rn(sum, r), terms[i]);
  return __fmul_rn(sum,
                   __uint_as_float(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23));
}

__device__ void Edit(const DrawRow& row, const DrawEdit& edit, float* values) {
  float value = __fadd_rn(values[edit.token], edit.bias);
  if (edit.count >= 0) {
    value = value > 0 ? __fdiv_rn(value, row.repetition_penalty)
                      : __fmul_rn(value, row.repetition_penalty);
  }
  if (edit.count > 0) {
    value = __fsub_rn(value, row.presence_penalty);
    value = __fsub_rn(value, __fmul_rn(row.frequency_penalty, static_cast<float>(edit.count)));
  }
  values[edit.token] = edit.masked ? -INFINITY : value;
}

struct Best {
  float value;
  int32_t index;
};

// The first of the largest, NaN passed over; {-inf, 0} where nothing is above minus infinity.
__device__ Best FindBest(const float* values, int32_t count, Shared& shared) {
  Best best{-INFINITY, 0};
  for (int32_t i = threadIdx.x; i < count; i += kThreads) {
    if (values[i] > best.value) best = {values[i], i};
  }
  const auto take = [&best](float value, int32_t index) {
    if (value > best.value || (value == best.value && index < best.index)) best = {value, index};
  };
  for (int mask = 16; mask > 0; mask /= 2) {
    const float value = ShuffleXor(best.value, mask);
    const float index = ShuffleXor(__uint_as_float(static_cast<uint32_t>(best.index)), mask);
    take(value, static_cast<int32_t>(__float_as_uint(index)));
  }
  if (threadIdx.x % 32 == 0) {
    shared.best_of[threadIdx.x / 32] = best.value;
    shared.index_of[threadIdx.x / 32] = best.index;
  }
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) take(shared.best_of[i], shared.index_of[i]);
  if (best.value == -INFINITY) best.index = 0;
  __syncthreads();
  return best;
}

// Logits to weights; sums of blocks in shared.sums. Gives their sum.
__device__ double Weigh(float* values, int32_t count, float best, float temperature,
                        Shared& shared) {
  for (int32_t i = threadIdx.x; i < count; i += kThreads) {
    values[i] = SoftmaxWeight(values[i], best, temperature);
  }
  __syncthreads();
  const int32_t blocks = (count + kSumBlock - 1) / kSumBlock;
  for (int32_t i = threadIdx.x; i < blocks * kLanes; i += kThreads) {
    const int32_t begin = i / kLanes * kSumBlock;
    const int32_t end = begin + kSumBlock < count ? begin + kSumBlock : count;
    double sum = 0;
    for (int32_t at = begin + i % kLanes; at < end; at += kLanes) sum += values[at];
    shared.lane_sums[i] = sum;
  }
  __syncthreads();
  double total = 0;
  for (int32_t block = 0; block < blocks; ++block) {
    const double* const lanes = shared.lane_sums + block * kLanes;
    const double sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    if (threadIdx.x == 0) shared.sums[block] = sum;
    total += sum;
  }
  __syncthreads();
  return total;
}

// The first with which the running sum exceeds `mass`, of which `mass` is then what it has; else
// the last above 0, all of it.
template <typename T>
__device__ int32_t Pick(const T* weights, int32_t count, double& mass) {
  int32_t last = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (mass - weights[i] < 0) return i;
    mass -= weights[i];
    if (weights[i] > 0) last = i;
  }
  mass = INFINITY;
  return last;
}

// By one thread; the others bring what it reads.
__device__ void DrawFromAll(const float* weights, int32_t count, double mass, int32_t* token,
                            Shared& shared) {
  const int32_t blocks = (count + kSumBlock - 1) / kSumBlock;
  const int32_t block = Pick(shared.sums, blocks, mass);
  const int32_t begin = block * kSumBlock;
  const int32_t end = begin + kSumBlock < count ? begin + kSumBlock : count;
  for (int32_t i = begin + static_cast<int32_t>(threadIdx.x); i < end; i += kThreads) {
    shared.weights[i - begin] = weights[i];
  }
  __syncthreads();
  if (threadIdx.x == 0) *token = begin + Pick(shared.weights, end - begin, mass);
}

// The least ordered value of the `wanted` largest above minus infinity; of all, if they are fewer.
__device__ uint32_t Threshold(const float* values, int32_t count, uint32_t wanted, Shared& shared) {
  if (threadIdx.x == 0) {
    shared.prefix = 0;
    shared.wanted = wanted;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) shared.histogram[i] = 0;
    __syncthreads();
    const uint32_t prefix = shared.prefix;
    for (int32_t i = threadIdx.x; i < count; i += kThreads) {
      if (!(values[i] > -INFINITY)) continue;
      const uint32_t ordered = Ordered(values[i]);
      const bool same = shift == 24 || ordered >> (shift + 8) == prefix >> (shift + 8);
      if (same) atomicAdd(&shared.histogram[ordered >> shift & 255], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      while (digit > 0 && shared.histogram[digit] < shared.wanted) {
        shared.wanted -= shared.histogram[digit--];
      }
      shared.prefix |= static_cast<uint32_t>(digit) << shift;
    }
    __syncthreads();
  }
  return shared.prefix;
}

// Ascending; the rest of the array is filled with the largest key.
__device__ void Sort(Shared& shared) {
  for (int i = threadIdx.x; i < kMostCandidates; i += kThreads) {
    if (static_cast<uint32_t>(i) >= shared.count) shared.candidates[i] = ~uint64_t{0};
  }
  for (int size = 2; size <= kMostCandidates; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < kMostCandidates; i += kThreads) {
        const int other = i ^ step;
        if (other < i) continue;
        const uint64_t a = shared.candidates[i];
        const uint64_t b = shared.candidates[other];
        if ((a > b) != ((i & size) == 0)) continue;
        shared.candidates[i] = b;
        shared.candidates[other] = a;
      }
    }
  }
  __syncthreads();
}

// Of the candidates, whose weights are in their order in shared.weights. By one thread.
__device__ int32_t DrawFromCandidates(const DrawRow& row, int32_t count, double total,
                                      Shared& shared) {
  float* const weights = shared.weights;
  if (row.top_p < 1) {
    const double mass = row.top_p * total;
    double sum = 0;
    int32_t kept = 0;
    while (kept < count && sum < mass) sum += weights[kept++];
    count = kept;
  }
  double kept = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (weights[i] < row.min_p) {
      weights[i] = 0;  // it takes no share, and is never the last above 0
    } else {
      kept += weights[i];
    }
  }
  double mass = row.uniform * kept;
  return Pick(weights, count, mass);
}

__global__ void DrawKernel(DrawArguments a) {
  BATON_SHARED_BYTES(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const DrawRow row = a.rows[blockIdx.x];
  int32_t* const token = a.tokens + blockIdx.x;
  if (!row.drawn) return;  // the whole block
  const float* const logits = a.logits + int64_t{blockIdx.x} * a.vocab;
  float* const values = a.values + int64_t{blockIdx.x} * a.vocab;
  for (int32_t i = threadIdx.x; i < a.vocab; i += kThreads) values[i] = logits[i];
  __syncthreads();
  for (int32_t i = threadIdx.x; i < row.edit_count; i += kThreads) {
    Edit(row, a.edits[row.first_edit + i], values);
  }
  __syncthreads();
  const Best best = FindBest(values, a.vocab, shared);
  if (row.temperature == 0 || best.value == -INFINITY) {
    if (threadIdx.x == 0) *token = best.index;
    return;
  }
  if (best.value == INFINITY) {
    if (threadIdx.x == 0) *token = kLeftToHost;
    return;
  }
  const bool by_top_k = row.top_k > 0 && row.top_k < a.vocab;
  double total = 0;
  uint32_t least;  // ordered, of the candidates
  if (by_top_k) {
    least = Threshold(values, a.vocab, static_cast<uint32_t>(row.top_k), shared);
  } else {
    total = Weigh(values, a.vocab, best.value, row.temperature, shared);
    if (row.top_p == 1 && row.min_p == 0) {
      DrawFromAll(values, a.vocab, row.uniform * total, token, shared);
      return;
    }
    least = 0;
  }
  const double lightest = (1.0 - row.top_p) * total / static_cast<double>(a.vocab);
  const double least_weight = lightest > row.min_p ? lightest : row.min_p;
  const bool by_value = by_top_k || row.top_p < 1;
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  for (int32_t i = threadIdx.x; i < a.vocab; i += kThreads) {
    const float value = values[i];
    const bool taken =
        by_top_k ? value > -INFINITY && Ordered(value) >= least : value >= least_weight;
    if (!taken) continue;
    const uint32_t at = atomicAdd(&shared.count, 1u);
    if (at >= kMostCandidates) continue;
    const auto id = static_cast<uint32_t>(i);
    shared.candidates[at] =
        by_value ? uint64_t{~Ordered(value)} << 32 | id : uint64_t{id} << 32 | Ordered(value);
  }
  __syncthreads();
  if (shared.count > kMostCandidates) {
    if (threadIdx.x == 0) *token = kLeftToHost;
    return;
  }
  Sort(shared);
  auto count = static_cast<int32_t>(shared.count);
  if (by_top_k && count > row.top_k) count = row.top_k;
  for (int32_t i = threadIdx.x; i < count; i += kThreads) {
    const uint64_t key = shared.candidates[i];
    const float value =
        FromOrdered(by_value ? ~static_cast<uint32_t>(key >> 32) : static_cast<uint32_t>(key));
    shared.weights[i] = by_top_k ? SoftmaxWeight(value, best.value, row.temperature) : value;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (by_top_k) {
    double lanes[kLanes] = {};
    for (int32_t i = 0; i < count; ++i) lanes[i % kLanes] += shared.weights[i];
    total = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  }
  const uint64_t key = shared.candidates[DrawFromCandidates(row, count, total, shared)];
  *token = static_cast<int32_t>(by_value ? key & 0xffffffffu : key >> 32);
}

}  // namespace

bool AllowDraw() {
  return cudaFuncSetAttribute(DrawKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(sizeof(Shared))) == cudaSuccess;
}

void LaunchDraw(const DrawArguments& arguments, int32_t rows, Stream stream) {
  BATON_LAUNCH(DrawKernel, rows, kThreads, sizeof(Shared), stream, arguments);
}

}  // namespace baton::kernels::cuda
