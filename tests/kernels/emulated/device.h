#pragma once

// CUDA's words on a CPU: a block's threads are fibers that take turns, from barrier to barrier, and
// blocks follow each other. A barrier that some thread of the block or warp never reaches ends the
// program. Shared memory is poisoned before each block where it is dynamic; where it is static it
// holds what the block before left.

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

#include "kernels/half.h"

struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
  dim3(uint32_t x_, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}
  dim3() = default;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

#define __global__
#define __device__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define BATON_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                   \
  ((void)(stream), ::baton::kernels::cuda::emulated::Launch(grid, block, shared_bytes, \
                                                            [&] { kernel(__VA_ARGS__); }))
#define BATON_SHARED_FLOATS(name) float* const name = ::baton::kernels::cuda::emulated::shared

namespace baton::kernels::cuda {
namespace emulated {

inline dim3 block_index, thread_index;
inline float* shared = nullptr;

// Of the running thread.
void Launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
void BlockBarrier();
void WarpBarrier();
float Exchange(float value, int mask);

}  // namespace emulated

#define blockIdx ::baton::kernels::cuda::emulated::block_index
#define threadIdx ::baton::kernels::cuda::emulated::thread_index

inline void __syncthreads() { emulated::BlockBarrier(); }
inline void __syncwarp() { emulated::WarpBarrier(); }
inline float ShuffleXor(float value, int mask) { return emulated::Exchange(value, mask); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
inline float ToFloat(Half value) { return HalfToFloat(value.bits); }
inline float ToFloat(BFloat16 value) { return BFloat16ToFloat(value.bits); }
template <typename T>
T FromFloat(float value);
template <>
inline Half FromFloat<Half>(float value) {
  return {FloatToHalf(value)};
}
template <>
inline BFloat16 FromFloat<BFloat16>(float value) {
  return {FloatToBFloat16(value)};
}
template <typename T>
T BitsTo(uint16_t bits) {
  return {bits};
}
inline uint16_t HalfBits(float value) { return FloatToHalf(value); }
inline uint16_t BFloat16Bits(float value) { return FloatToBFloat16(value); }

// Tiles are read where they lie, which barriers allow: nobody writes there before the warp is done.
template <typename T>
struct WeightTile {
  const T* from;
  int stride;
};
template <typename T>
struct InputTile {
  const T* from;
  int stride;
};
struct SumTile {
  static constexpr int num_elements = 8;
  float x[num_elements];  // lane i has n of i / 2, and m from i % 2 * 8 on
};
inline void Zero(SumTile& sums) {
  for (float& x : sums.x) x = 0;
}
template <typename Tile, typename T>
void LoadTile(Tile& tile, const T* from, int stride) {
  tile = {from, stride};
}
template <typename T>
void MultiplyAdd(SumTile& sums, const WeightTile<T>& weights, const InputTile<T>& inputs) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = 0; i < SumTile::num_elements; ++i) {
    const T* weight = weights.from + lane / 2 * weights.stride;
    const T* input = inputs.from + (lane % 2 * 8 + i) * inputs.stride;
    for (int k = 0; k < 16; ++k) sums.x[i] += ToFloat(weight[k]) * ToFloat(input[k]);
  }
}
inline void StoreTile(float* to, int stride, const SumTile& sums) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = 0; i < SumTile::num_elements; ++i) {
    to[(lane % 2 * 8 + i) * stride + lane / 2] = sums.x[i];
  }
}

inline constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 0;
inline constexpr int cudaSuccess = 0;
template <typename Kernel>
int cudaFuncSetAttribute(Kernel*, int, int) {
  return cudaSuccess;
}

}  // namespace baton::kernels::cuda
