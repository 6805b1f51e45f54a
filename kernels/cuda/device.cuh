#pragma once

// What the kernels are written in: CUDA's own words, and for a few of them wrappers, so that
// tests/kernels/emulated runs the same kernels on a CPU, one block after another.

#include <cstdint>

#ifdef BATON_CUDA_EMULATED
#include "tests/kernels/emulated/device.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#define BATON_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
// The block's dynamic shared memory as floats.
#define BATON_SHARED_FLOATS(name) extern __shared__ __align__(16) float name[]

namespace baton::kernels::cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;

inline __device__ float ToFloat(Half value) { return __half2float(value); }
inline __device__ float ToFloat(BFloat16 value) { return __bfloat162float(value); }
template <typename T>
__device__ T FromFloat(float value);
template <>
inline __device__ Half FromFloat<Half>(float value) {
  return __float2half_rn(value);
}
template <>
inline __device__ BFloat16 FromFloat<BFloat16>(float value) {
  return __float2bfloat16_rn(value);
}

template <typename T>
__device__ T BitsTo(uint16_t bits);
template <>
inline __device__ Half BitsTo<Half>(uint16_t bits) {
  return __ushort_as_half(bits);
}
template <>
inline __device__ BFloat16 BitsTo<BFloat16>(uint16_t bits) {
  return __ushort_as_bfloat16(bits);
}
inline __device__ uint16_t HalfBits(float value) {
  return __half_as_ushort(__float2half_rn(value));
}
inline __device__ uint16_t BFloat16Bits(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

inline __device__ float ShuffleXor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// Tensor-core tiles of 16 x 16: sums[n][m] += weights[n][k] * inputs[m][k]. Each is one warp's, and
// pointers are 32-byte aligned in shared memory.
template <typename T>
using WeightTile = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T,
                                          nvcuda::wmma::row_major>;
template <typename T>
using InputTile = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T,
                                         nvcuda::wmma::col_major>;
using SumTile = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;

inline __device__ void Zero(SumTile& sums) { nvcuda::wmma::fill_fragment(sums, 0.0f); }
template <typename Tile, typename T>
__device__ void LoadTile(Tile& tile, const T* from, int stride) {
  nvcuda::wmma::load_matrix_sync(tile, from, stride);
}
template <typename T>
__device__ void MultiplyAdd(SumTile& sums, const WeightTile<T>& weights,
                            const InputTile<T>& inputs) {
  nvcuda::wmma::mma_sync(sums, weights, inputs, sums);
}
// to[m * stride + n] = sums[n][m]
inline __device__ void StoreTile(float* to, int stride, const SumTile& sums) {
  nvcuda::wmma::store_matrix_sync(to, sums, stride, nvcuda::wmma::mem_col_major);
}

}  // namespace baton::kernels::cuda
#endif

namespace baton::kernels::cuda {

inline __device__ float WarpSum(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value = __fadd_rn(value, ShuffleXor(value, mask));
  return value;
}

// The larger of two; a NaN if either is one.
inline __device__ float LargerOrNan(float a, float b) {
  return a != a ? a : (b != b || b > a ? b : a);
}

inline __device__ float WarpMax(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value = LargerOrNan(value, ShuffleXor(value, mask));
  return value;
}

}  // namespace baton::kernels::cuda
