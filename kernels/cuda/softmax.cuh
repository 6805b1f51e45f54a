#pragma once

// Softmaxes over some positions, with scores in units of log 2: the largest score, the sum of
// 2^(score - largest), and of that times the values. Those of a query's segments are merged in
// order, by one block or by several: the compiler may not fuse here and there.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

inline constexpr float kLog2E = 1.44269504f;

// What the values of the softmax so far, and of the next, are multiplied with.
struct MergeFactors {
  float keep;
  float take;
};

inline __device__ MergeFactors MergeSums(float& largest, float& sum, float next_largest,
                                         float next_sum) {
  const float largest_of_both = LargerOrNan(largest, next_largest);
  const MergeFactors factors{exp2f(__fsub_rn(largest, largest_of_both)),
                             exp2f(__fsub_rn(next_largest, largest_of_both))};
  sum = __fadd_rn(__fmul_rn(sum, factors.keep), __fmul_rn(next_sum, factors.take));
  largest = largest_of_both;
  return factors;
}

inline __device__ float MergeValue(float total, float next, const MergeFactors& factors) {
  return __fadd_rn(__fmul_rn(total, factors.keep), __fmul_rn(next, factors.take));
}

// Where the softmax of a segment is left: largest, sum, values.
inline __device__ float* Partial(const AttentionArguments& a, int64_t row, int32_t head,
                                 int32_t segment) {
  return a.partials + ((row * a.heads + head) * a.segments + segment) * (a.cache.head_dim + 2);
}

}  // namespace baton::kernels::cuda
