#pragma once

// Elements of the KV cache, as KvLayout places them and reference/kv_vector.cc writes them.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

// Element index in [rows / together][columns][together].
inline __device__ int64_t KvIndex(const Cache& cache, int32_t row, int32_t column,
                                  int32_t columns) {
  if (cache.together == 1) return int64_t{row} * columns + column;
  return (int64_t{row / cache.together} * columns + column) * cache.together + row % cache.together;
}
inline __device__ int64_t KeyIndex(const Cache& cache, int32_t token, int32_t element) {
  return KvIndex(cache, element, token, cache.block_tokens);
}
inline __device__ int64_t ValueIndex(const Cache& cache, int32_t token, int32_t element) {
  return KvIndex(cache, token, element, cache.head_dim);
}

inline __device__ bool IsScaled(const Cache& cache) {
  return cache.dtype == KvDType::kInt8 || cache.dtype == KvDType::kFp8;
}

// E4M3, to nearest, ties to even; 448 and above become 448.
inline __device__ uint8_t ToFp8(float value) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t sign = bits >> 24 & 0x80;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint8_t>(sign | 0x7f);
  if (magnitude >= 0x43e00000) return static_cast<uint8_t>(sign | 0x7e);  // 448
  if (magnitude < 0x3c800000) {  // below 2^-6: steps of 2^-9
    const float steps = rintf(__uint_as_float(magnitude) * 512.0f);
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(steps));
  }
  const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120 << 3)));
}
inline __device__ float FromFp8(uint8_t code) {
  const uint32_t exponent = code >> 3 & 15;
  const uint32_t mantissa = code & 7;
  float magnitude = exponent == 0 ? static_cast<float>(mantissa) * (1.0f / 512)
                                  : __uint_as_float((exponent + 120) << 23 | mantissa << 20);
  if ((code & 0x7f) == 0x7f) magnitude = __uint_as_float(0x7fc00000);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

inline __device__ void StoreKvElement(const Cache& cache, char* head, int64_t index, float value) {
  switch (cache.dtype) {
    case KvDType::kF32:
      reinterpret_cast<float*>(head)[index] = value;
      break;
    case KvDType::kF16:
      reinterpret_cast<uint16_t*>(head)[index] = HalfBits(value);
      break;
    case KvDType::kBF16:
      reinterpret_cast<uint16_t*>(head)[index] = BFloat16Bits(value);
      break;
    case KvDType::kInt8:
      reinterpret_cast<int8_t*>(head)[index] = static_cast<int8_t>(rintf(value));
      break;
    case KvDType::kFp8:
      reinterpret_cast<uint8_t*>(head)[index] = ToFp8(value);
      break;
  }
}

// Without its scale.
inline __device__ float LoadKvElement(const Cache& cache, const char* head, int64_t index) {
  switch (cache.dtype) {
    case KvDType::kF32:
      return reinterpret_cast<const float*>(head)[index];
    case KvDType::kF16:
      return ToFloat(BitsTo<Half>(reinterpret_cast<const uint16_t*>(head)[index]));
    case KvDType::kBF16:
      return ToFloat(BitsTo<BFloat16>(reinterpret_cast<const uint16_t*>(head)[index]));
    case KvDType::kInt8:
      return static_cast<float>(reinterpret_cast<const int8_t*>(head)[index]);
    case KvDType::kFp8:
      return FromFp8(reinterpret_cast<const uint8_t*>(head)[index]);
  }
  return 0;
}

inline __device__ float* KvScale(const Cache& cache, char* head, int32_t token) {
  return reinterpret_cast<float*>(head + cache.data_bytes) + token;
}
inline __device__ float LoadKvScale(const Cache& cache, const char* head, int32_t token) {
  if (!IsScaled(cache)) return 1.0f;
  return reinterpret_cast<const float*>(head + cache.data_bytes)[token];
}

}  // namespace baton::kernels::cuda
