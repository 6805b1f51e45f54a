// Keys and values into the cache, rounded to its format.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_simd.h"

namespace baton::kernels::BATON_ISA {
namespace {

// A vector whose largest element is below this is zero: its inverse scale might overflow, and it
// cannot matter.
constexpr float kSmallest = 1e-30f;

// Largest magnitude; NaN if there is one, so that NaN is not lost in formats that have none.
float LargestMagnitude(const float* x, int32_t count) {
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

template <KvDType kDType>
void StoreToken(const KvToken& token) {
  using Format = KvFormat<kDType>;
  constexpr int kTogether = Format::kTogether;
  constexpr int kUnitBytes = kTogether * Format::kBytes;
  const int32_t units = (token.head_dim + kTogether - 1) / kTogether;
  const int64_t scale =
      int64_t{token.block_tokens} * units * kUnitBytes + token.index * int64_t{sizeof(float)};
  StoreVector<kDType, kTogether>(token.key, token.head_dim, token.block_tokens * kUnitBytes,
                                 token.keys + token.index * kUnitBytes, token.keys + scale);
  const int64_t row = int64_t{token.index / kTogether} * token.head_dim;
  StoreVector<kDType, 1>(token.value, token.head_dim, kUnitBytes,
                         token.values + row * kUnitBytes + token.index % kTogether * Format::kBytes,
                         token.values + scale);
}

}  // namespace

void StoreKv(const KvToken& token) {
  switch (token.dtype) {
    case KvDType::kF32:
      return StoreToken<KvDType::kF32>(token);
    case KvDType::kF16:
      return StoreToken<KvDType::kF16>(token);
    case KvDType::kBF16:
      return StoreToken<KvDType::kBF16>(token);
    case KvDType::kInt8:
      return StoreToken<KvDType::kInt8>(token);
    case KvDType::kFp8:
      return StoreToken<KvDType::kFp8>(token);
  }
}

}  // namespace baton::kernels::BATON_ISA
