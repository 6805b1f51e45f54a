#pragma once

// Rows of inputs as the tensor cores take them.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

// One row, by a block of kThreads threads, each of which wrote elements threadIdx.x + i * kThreads
// of `from`, or all of which see it.
template <int kThreads, typename T>
__device__ void RoundRow(const float* from, int32_t cols, const Rounding& rounding, int64_t row,
                         bool scaled) {
  __shared__ float largest_of[kThreads / 32];
  T* const to = static_cast<T*>(rounding.values) + row * rounding.padded_cols;
  float largest = 0;
  for (int32_t c = threadIdx.x; c < cols; c += kThreads) {
    largest = LargerOrNan(largest, fabsf(from[c]));
  }
  largest = WarpMax(largest);
  if (threadIdx.x % 32 == 0) largest_of[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) largest = LargerOrNan(largest, largest_of[i]);
  // The largest element to [2^14, 2^15). Zeros, infinities and NaNs stay as they are.
  int exponent = 0;
  if (scaled && largest > 0 && largest < INFINITY) exponent = 14 - ilogbf(largest);
  if (exponent > 100) exponent = 100;  // 2^-113 at least, so both factors are finite
  const float factor = ldexpf(1.0f, exponent);
  if (threadIdx.x == 0) rounding.row_scales[row] = ldexpf(1.0f, -exponent);
  for (int32_t c = threadIdx.x; c < rounding.padded_cols; c += kThreads) {
    to[c] = FromFloat<T>(c < cols ? from[c] * factor : 0.0f);
  }
}

template <int kThreads>
__device__ void RoundRow(const float* from, int32_t cols, const Rounding& rounding, int64_t row) {
  if (rounding.bf16) {
    RoundRow<kThreads, BFloat16>(from, cols, rounding, row, /*scaled=*/false);
  } else {
    RoundRow<kThreads, Half>(from, cols, rounding, row, /*scaled=*/true);
  }
}

}  // namespace baton::kernels::cuda
