#include "kernels/reference/kv_vector.h"

#include <cmath>
#include <cstring>

#include "kernels/half.h"

namespace baton::kernels {
namespace {

template <typename T>
T Get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void Put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// The number of a vector's largest element in a format with scales.
float LargestNumber(KvDType dtype) { return dtype == KvDType::kInt8 ? 127.0f : 448.0f; }

void StoreElement(KvDType dtype, float value, std::byte* to) {
  switch (dtype) {
    case KvDType::kF32:
      return Put(to, value);
    case KvDType::kF16:
      return Put(to, FloatToHalf(value));
    case KvDType::kBF16:
      return Put(to, FloatToBFloat16(value));
    case KvDType::kInt8:
      return Put(to, static_cast<int8_t>(std::nearbyint(value)));
    case KvDType::kFp8:
      return Put(to, FloatToFp8(value));
  }
}

float LoadElement(KvDType dtype, const std::byte* from) {
  switch (dtype) {
    case KvDType::kF32:
      return Get<float>(from);
    case KvDType::kF16:
      return HalfToFloat(Get<uint16_t>(from));
    case KvDType::kBF16:
      return BFloat16ToFloat(Get<uint16_t>(from));
    case KvDType::kInt8:
      return Get<int8_t>(from);
    case KvDType::kFp8:
      return Fp8ToFloat(Get<uint8_t>(from));
  }
  return 0;
}

int64_t ElementAt(const KvLayout& layout, KvSide side, int32_t token, int32_t element) {
  return side == KvSide::kKey ? layout.key_element(token, element)
                              : layout.value_element(token, element);
}

}  // namespace

void StoreKvVector(const KvLayout& layout, KvSide side, int32_t token, const float* from,
                   std::byte* head) {
  float to_number = 1;
  if (Traits(layout.dtype).scaled) {
    float largest = 0;
    for (int32_t d = 0; d < layout.head_dim; ++d) {
      const float magnitude = std::fabs(from[d]);
      if (std::isnan(magnitude) || magnitude > largest) largest = magnitude;
      if (std::isnan(largest)) break;  // the scale keeps it
    }
    // Too small to matter, and its inverse might overflow: the vector is zero.
    const bool zero = largest < 1e-30f;
    to_number = zero ? 0 : LargestNumber(layout.dtype) / largest;
    Put(head + layout.scale(token), zero ? 0.0f : largest / LargestNumber(layout.dtype));
  }
  for (int32_t d = 0; d < layout.head_dim; ++d) {
    float number = from[d] * to_number;
    if (Traits(layout.dtype).scaled && std::isnan(number)) number = 0;  // the scale spoils it
    StoreElement(layout.dtype, number, head + ElementAt(layout, side, token, d));
  }
}

void LoadKvVector(const KvLayout& layout, KvSide side, int32_t token, const std::byte* head,
                  float* to) {
  const float scale = Traits(layout.dtype).scaled ? Get<float>(head + layout.scale(token)) : 1.0f;
  for (int32_t d = 0; d < layout.head_dim; ++d) {
    to[d] = scale * LoadElement(layout.dtype, head + ElementAt(layout, side, token, d));
  }
}

}  // namespace baton::kernels
