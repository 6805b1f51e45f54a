#pragma once

// One vector into the cache, rounded to its format: for keys and values that were just computed,
// and for those that come from a cache of another format, which so become the same bits.

#include "kernels/cpu/kv_simd.h"

namespace baton::kernels::BATON_ISA {

// A vector whose largest element is below this is zero: its inverse scale might overflow, and it
// cannot matter.
constexpr float kSmallest = 1e-30f;

// Largest magnitude; NaN if there is one, so that NaN is not lost in formats that have none.
BATON_INLINE float LargestMagnitude(const float* x, int32_t count) {
  Ints largest = ZeroInts();
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) largest = MaxMagnitude(largest, Load(x + i));
  if (i < count) largest = MaxMagnitude(largest, LoadFirst(x + i, count - i));
  return ReduceMagnitude(largest);
}

// `count` pieces of kBytes each, `stride` bytes apart.
template <int kBytes>
BATON_INLINE void Scatter(const uint8_t* from, int32_t count, int64_t stride, uint8_t* to) {
  for (int32_t i = 0; i < count; ++i) std::memcpy(to + i * stride, from + i * kBytes, kBytes);
}

// One vector to `to`, `kTogether` elements at a time, `stride` bytes apart, and its scale to
// `scale`.
template <KvDType kDType, int kTogether>
void StoreVector(const float* x, int32_t count, int64_t stride, uint8_t* to, uint8_t* scale) {
  using Format = KvFormat<kDType>;
  Floats inverse = Set1(1);
  if constexpr (Format::kLargest > 0) {
    const float largest = LargestMagnitude(x, count);
    const bool nonzero = !(largest < kSmallest);
    const float factor = nonzero ? largest / Format::kLargest : 0;
    std::memcpy(scale, &factor, sizeof factor);
    inverse = Set1(nonzero ? Format::kLargest / largest : 0);
  }
  for (int32_t i = 0; i < count; i += kLanes) {
    const int32_t part = count - i < kLanes ? count - i : kLanes;
    Floats values = part == kLanes ? Load(x + i) : LoadFirst(x + i, part);
    if constexpr (Format::kLargest > 0) values = Mul(values, inverse);
    alignas(64) uint8_t elements[4 * kLanes];
    Format::Store(elements, values);
    constexpr int kBytes = kTogether * Format::kBytes;
    if (stride == kBytes) {
      std::memcpy(to + i / kTogether * stride, elements, part * Format::kBytes);
    } else {
      Scatter<kBytes>(elements, (part + kTogether - 1) / kTogether, stride,
                      to + i / kTogether * stride);
    }
  }
}

}  // namespace baton::kernels::BATON_ISA
