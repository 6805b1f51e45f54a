#pragma once

// What the kernels are written in: CUDA's own words, and for a few of them wrappers, so that
// tests/kernels/emulated runs the same kernels on a CPU, one block after another.

#include <cstdint>

#ifdef BATON_CUDA_EMULATED
#include "tests/kernels/emulated/device.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define BATON_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
// The block's dynamic shared memory, in one of two types in a file.
#define BATON_SHARED_FLOATS(name) extern __shared__ __align__(16) float name[]
#define BATON_SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]

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

// Two numbers in a register of the tensor cores, the first in the low half.
template <typename T>
__device__ uint32_t Pair(float low, float high);
template <>
inline __device__ uint32_t Pair<Half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
template <>
inline __device__ uint32_t Pair<BFloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// sums[16][8] += a[16][16] * b[16][8] of one warp (PTX: mma.m16n8k16). Lane 4 g + q holds of
//   a     rows g and g + 8 of columns 2q and 2q + 1 in a[0] and a[1], of 2q + 8 and 2q + 9 in a[2]
//         and a[3]
//   b     column g: rows 2q and 2q + 1 in b0, 2q + 8 and 2q + 9 in b1
//   sums  columns 2q and 2q + 1: of row g in sums[0] and [1], of row g + 8 in [2] and [3]
template <typename T>
__device__ void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#define BATON_MMA(type)                                                               \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <>
inline __device__ void MultiplyAdd<Half>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  BATON_MMA("f16");
}
template <>
inline __device__ void MultiplyAdd<BFloat16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  BATON_MMA("bf16");
}
#undef BATON_MMA

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
