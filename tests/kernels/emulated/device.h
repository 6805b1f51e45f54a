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
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define BATON_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                   \
  ((void)(stream), ::baton::kernels::cuda::emulated::Launch(grid, block, shared_bytes, \
                                                            [&] { kernel(__VA_ARGS__); }))
#define BATON_SHARED_FLOATS(name) float* const name = ::baton::kernels::cuda::emulated::shared
#define BATON_SHARED_BYTES(name) float* const name = ::baton::kernels::cuda::emulated::shared

namespace baton::kernels::cuda {
namespace emulated {

inline dim3 block_index, thread_index;
inline float* shared = nullptr;

// Of the running thread.
void Launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
// Does the copies to the device that were started: before a kernel, a copy, or the end of a wait.
void Fetch();
void BlockBarrier();
void WarpBarrier();
float Exchange(float value, int mask);
// What a lane brings to a product of the tensor cores; gives that of all lanes of its warp.
struct Fragments {
  uint32_t a[4];
  uint32_t b[2];
};
const Fragments* Exchange(const Fragments& fragments);

}  // namespace emulated

#define blockIdx ::baton::kernels::cuda::emulated::block_index
#define threadIdx ::baton::kernels::cuda::emulated::thread_index

inline void __syncthreads() { emulated::BlockBarrier(); }
inline void __syncwarp() { emulated::WarpBarrier(); }
inline float ShuffleXor(float value, int mask) { return emulated::Exchange(value, mask); }

inline uint32_t atomicAdd(uint32_t* to, uint32_t value) {
  *to += value;
  return *to - value;
}

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

template <typename T>
uint32_t Pair(float low, float high) {
  return FromFloat<T>(low).bits | uint32_t{FromFloat<T>(high).bits} << 16;
}
template <typename T>
float Half16(uint32_t pair, int index) {
  return ToFloat(BitsTo<T>(static_cast<uint16_t>(pair >> (16 * index))));
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  }
  return result;
}

// By PTX's table of which lane holds what (mma.m16n8k16); k in order.
template <typename T>
void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto lane = static_cast<int>(threadIdx.x % 32);
  const emulated::Fragments* const warp = emulated::Exchange({{a[0], a[1], a[2], a[3]}, {b0, b1}});
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const uint32_t weight = warp[row % 8 * 4 + k % 8 / 2].a[k / 8 * 2 + row / 8];
      const uint32_t input = warp[column * 4 + k % 8 / 2].b[k / 8];
      sums[i] += Half16<T>(weight, k % 2) * Half16<T>(input, k % 2);
    }
  }
}

inline constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 0;
inline constexpr int cudaSuccess = 0;
template <typename Kernel>
int cudaFuncSetAttribute(Kernel*, int, int) {
  return cudaSuccess;
}

}  // namespace baton::kernels::cuda
