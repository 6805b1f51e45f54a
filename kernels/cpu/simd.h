#pragma once

// The vector operations that the kernels are written in, for the instruction set that this file is
// compiled for: avx512 (F, BW, VL, DQ, VNNI, BF16), avx2 (with FMA and F16C), portable (GCC's
// vector extensions, no intrinsics). Every function is inlined; rounding is that of each named
// operation, so a kernel's bits do not depend on how the compiler arranges it.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/panel_format.h"
#if !defined(__AVX2__)
#include "kernels/half.h"
#endif

#define BATON_INLINE static inline __attribute__((always_inline))
#define BATON_UNROLL _Pragma("GCC unroll 16")

namespace baton::kernels::BATON_ISA {

// The bits of the float 1.5 * 2^23. Added to an integer below 2^22, they make the bits of the float
// 1.5 * 2^23 + integer.
constexpr float kShift = 12582912.0f;
constexpr int32_t kShiftBits = 0x4b400000;

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Floats = __m512;
using Ints = __m512i;

BATON_INLINE Floats Zero() { return _mm512_setzero_ps(); }
BATON_INLINE Floats Set1(float x) { return _mm512_set1_ps(x); }
BATON_INLINE Floats Load(const float* from) { return _mm512_loadu_ps(from); }
BATON_INLINE void Store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
BATON_INLINE __mmask16 FirstMask(int count) {
  return static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<unsigned>(count)));
}
// The first `count` lanes (0..kLanes); the others are 0 or not stored.
BATON_INLINE Floats LoadFirst(const float* from, int count) {
  return _mm512_maskz_loadu_ps(FirstMask(count), from);
}
BATON_INLINE void StoreFirst(float* to, Floats x, int count) {
  _mm512_mask_storeu_ps(to, FirstMask(count), x);
}
// The first `count` lanes of x, `other` in the rest; count may be negative or above kLanes.
BATON_INLINE Floats KeepFirst(Floats x, int count, Floats other) {
  return _mm512_mask_blend_ps(FirstMask(count < 0 ? 0 : count > 16 ? 16 : count), other, x);
}
BATON_INLINE Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
BATON_INLINE Floats Sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
BATON_INLINE Floats Mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
BATON_INLINE Floats Div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
// a * b + c, rounded once where the machine can.
BATON_INLINE Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// The larger; b if either is NaN.
BATON_INLINE Floats Max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
// The largest |x|, as the float; NaN if any lane is NaN.
BATON_INLINE Ints MaxMagnitude(Ints largest, Floats x) {
  // Without their sign, floats order as integers do, with NaN above infinity.
  return _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(x)));
}
BATON_INLINE float ReduceMagnitude(Ints largest) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(largest))));
}
BATON_INLINE Ints ZeroInts() { return _mm512_setzero_si512(); }
// x where test >= limit, else 0. NaN tests give x.
BATON_INLINE Floats ZeroBelow(Floats x, Floats test, Floats limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, limit, _CMP_NLT_UQ), x);
}
BATON_INLINE float ReduceAdd(Floats x) { return _mm512_reduce_add_ps(x); }
BATON_INLINE float ReduceMax(Floats x) { return _mm512_reduce_max_ps(x); }
// 2^n for a float of the form kShift + n.
BATON_INLINE Floats PowerOfTwo(Floats shifted) {
  const Ints biased = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
BATON_INLINE Floats LoadHalves(const void* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}
BATON_INLINE void StoreHalves(void* to, Floats x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
// BF16 pairs, one 32-bit lane each: the element of even or odd index.
BATON_INLINE Floats EvenBf16(Ints pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}
BATON_INLINE Floats OddBf16(Ints pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)));
}

BATON_INLINE Ints LoadInts(const void* from) { return _mm512_loadu_si512(from); }
BATON_INLINE void StoreInts(void* to, Ints x) { _mm512_storeu_si512(to, x); }
BATON_INLINE Floats ToFloats(Ints x) { return _mm512_cvtepi32_ps(x); }
BATON_INLINE Floats AsFloats(Ints bits) { return _mm512_castsi512_ps(bits); }
BATON_INLINE Ints LowNibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
BATON_INLINE Ints HighNibbles(Ints x) { return LowNibbles(_mm512_srli_epi16(x, 4)); }
BATON_INLINE Ints LoadBytes(const uint8_t* from, bool is_signed) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
}
// Four int8 activations in every lane.
BATON_INLINE Ints BroadcastQuad(const int8_t* from) {
  int32_t quad;
  std::memcpy(&quad, from, 4);
  return _mm512_set1_epi32(quad);
}
// A sum of (weight - zero) * activation over unsigned bytes: its start, given -(sum of all the
// activations), and the addition of four products a lane. Dot and DotStart share out the work of
// `zero`. The sum is kShiftBits too large: AsFloats of it is kShift + sum.
template <int kZero>
BATON_INLINE Ints DotStart(int32_t minus_sum) {
  return _mm512_set1_epi32(kShiftBits + minus_sum * kZero);
}
template <int kZero>
BATON_INLINE Ints Dot(Ints sum, Ints weights, Ints activations) {
  return _mm512_dpbusd_epi32(sum, weights, activations);
}
// dot * scale, rounded once, for a dot that is kShift too large; unshift is -kShift * scale,
// exactly.
BATON_INLINE Floats ScaleDot(Ints dot, Floats scale, Floats unshift) {
  return Fma(AsFloats(dot), scale, unshift);
}
// Rounds x, below 128 or NaN, to nearest even and stores kLanes int8, at least -127; NaN becomes
// -127. Returns their sum.
BATON_INLINE int32_t StoreQuants(int8_t* to, Floats x) {
  const Ints rounded = _mm512_cvtps_epi32(Max(x, Set1(-127)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(rounded));
  return _mm512_reduce_add_epi32(rounded);
}

// Transposes kLanes x kLanes floats.
BATON_INLINE void Transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  Ints a[16];
  Ints b[16];
  // Rows i, i + 4, i + 8, i + 12 of one 4-column part share a register: two of the four stages
  // are loads.
  BATON_UNROLL for (int part = 0; part < 4; ++part) {
    BATON_UNROLL for (int i = 0; i < 4; ++i) {
      const float* source = from + i * from_stride + part * 4;
      __m512 rows = _mm512_castps128_ps512(_mm_loadu_ps(source));
      rows = _mm512_insertf32x4(rows, _mm_loadu_ps(source + 4 * from_stride), 1);
      rows = _mm512_insertf32x4(rows, _mm_loadu_ps(source + 8 * from_stride), 2);
      rows = _mm512_insertf32x4(rows, _mm_loadu_ps(source + 12 * from_stride), 3);
      a[part * 4 + i] = _mm512_castps_si512(rows);
    }
  }
  BATON_UNROLL for (int part = 0; part < 4; ++part) {
    Ints* p = a + part * 4;
    b[0] = _mm512_unpacklo_epi32(p[0], p[1]);
    b[1] = _mm512_unpackhi_epi32(p[0], p[1]);
    b[2] = _mm512_unpacklo_epi32(p[2], p[3]);
    b[3] = _mm512_unpackhi_epi32(p[2], p[3]);
    float* target = to + part * 4 * to_stride;
    StoreInts(target, _mm512_unpacklo_epi64(b[0], b[2]));
    StoreInts(target + to_stride, _mm512_unpackhi_epi64(b[0], b[2]));
    StoreInts(target + 2 * to_stride, _mm512_unpacklo_epi64(b[1], b[3]));
    StoreInts(target + 3 * to_stride, _mm512_unpackhi_epi64(b[1], b[3]));
  }
}

// Transposes 16 rows of 32 halves, which lie at rows[i] + offset_bytes, into 32 rows of 16 floats.
BATON_INLINE void TransposeHalves(const uint8_t* const* rows, int64_t offset_bytes, float* to,
                                  int64_t to_stride) {
  // Pairs of halves are transposed as 32-bit elements, as in Transpose, and then split.
  BATON_UNROLL for (int part = 0; part < 4; ++part) {
    Ints p[4];
    BATON_UNROLL for (int i = 0; i < 4; ++i) {
      const auto load = [&](int row) __attribute__((always_inline)) {
        return _mm_loadu_si128(
            reinterpret_cast<const __m128i*>(rows[row] + offset_bytes + part * 16));
      };
      p[i] = _mm512_castsi128_si512(load(i));
      p[i] = _mm512_inserti32x4(p[i], load(i + 4), 1);
      p[i] = _mm512_inserti32x4(p[i], load(i + 8), 2);
      p[i] = _mm512_inserti32x4(p[i], load(i + 12), 3);
    }
    const Ints b0 = _mm512_unpacklo_epi32(p[0], p[1]);
    const Ints b1 = _mm512_unpackhi_epi32(p[0], p[1]);
    const Ints b2 = _mm512_unpacklo_epi32(p[2], p[3]);
    const Ints b3 = _mm512_unpackhi_epi32(p[2], p[3]);
    const Ints pairs[4] = {_mm512_unpacklo_epi64(b0, b2), _mm512_unpackhi_epi64(b0, b2),
                           _mm512_unpacklo_epi64(b1, b3), _mm512_unpackhi_epi64(b1, b3)};
    BATON_UNROLL for (int j = 0; j < 4; ++j) {
      float* target = to + (part * 8 + 2 * j) * to_stride;
      Store(target, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs[j])));
      Store(target + to_stride,
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs[j], 16))));
    }
  }
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using Floats = __m256;
using Ints = __m256i;

BATON_INLINE Floats Zero() { return _mm256_setzero_ps(); }
BATON_INLINE Floats Set1(float x) { return _mm256_set1_ps(x); }
BATON_INLINE Floats Load(const float* from) { return _mm256_loadu_ps(from); }
BATON_INLINE void Store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
BATON_INLINE Ints FirstMask(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
BATON_INLINE Floats LoadFirst(const float* from, int count) {
  return _mm256_maskload_ps(from, FirstMask(count));
}
BATON_INLINE void StoreFirst(float* to, Floats x, int count) {
  _mm256_maskstore_ps(to, FirstMask(count), x);
}
BATON_INLINE Floats KeepFirst(Floats x, int count, Floats other) {
  return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(FirstMask(count)));
}
BATON_INLINE Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
BATON_INLINE Floats Sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
BATON_INLINE Floats Mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
BATON_INLINE Floats Div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
BATON_INLINE Floats Fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
BATON_INLINE Floats Max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
BATON_INLINE Ints MaxMagnitude(Ints largest, Floats x) {
  const Floats magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_max_epi32(largest, _mm256_castps_si256(magnitude));
}
BATON_INLINE float ReduceMagnitude(Ints x) {
  __m128i largest = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  largest = _mm_max_epi32(largest, _mm_unpackhi_epi64(largest, largest));
  largest = _mm_max_epi32(largest, _mm_shuffle_epi32(largest, 1));
  return _mm_cvtss_f32(_mm_castsi128_ps(largest));
}
BATON_INLINE Ints ZeroInts() { return _mm256_setzero_si256(); }
BATON_INLINE Floats ZeroBelow(Floats x, Floats test, Floats limit) {
  return _mm256_and_ps(x, _mm256_cmp_ps(test, limit, _CMP_NLT_UQ));
}
BATON_INLINE float ReduceAdd(Floats x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
BATON_INLINE float ReduceMax(Floats x) {
  __m128 largest = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  largest = _mm_max_ps(largest, _mm_movehl_ps(largest, largest));
  return _mm_cvtss_f32(_mm_max_ss(largest, _mm_movehdup_ps(largest)));
}
BATON_INLINE Floats PowerOfTwo(Floats shifted) {
  const Ints biased = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
BATON_INLINE Floats LoadHalves(const void* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
BATON_INLINE void StoreHalves(void* to, Floats x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
BATON_INLINE Floats EvenBf16(Ints pairs) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}
BATON_INLINE Floats OddBf16(Ints pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)));
}

BATON_INLINE Ints LoadInts(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
BATON_INLINE void StoreInts(void* to, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(to), x); }
BATON_INLINE Floats ToFloats(Ints x) { return _mm256_cvtepi32_ps(x); }
BATON_INLINE Floats AsFloats(Ints bits) { return _mm256_castsi256_ps(bits); }
BATON_INLINE Ints LowNibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
BATON_INLINE Ints HighNibbles(Ints x) { return LowNibbles(_mm256_srli_epi16(x, 4)); }
BATON_INLINE Ints LoadBytes(const uint8_t* from, bool is_signed) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
}
BATON_INLINE Ints BroadcastQuad(const int8_t* from) {
  int32_t quad;
  std::memcpy(&quad, from, 4);
  return _mm256_set1_epi32(quad);
}
// VPMADDUBSW adds two products in 16 bits: exact for weights below 129. Unsigned weights with zero
// 128 are made signed first, and multiplied as |weight| * (activation with the weight's sign).
template <int kZero>
BATON_INLINE Ints DotStart(int32_t minus_sum) {
  return _mm256_set1_epi32(kZero == 128 ? kShiftBits : kShiftBits + minus_sum * kZero);
}
template <int kZero>
BATON_INLINE Ints Dot(Ints sum, Ints weights, Ints activations) {
  if (kZero == 128) {
    weights = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
    activations = _mm256_sign_epi8(activations, weights);
    weights = _mm256_abs_epi8(weights);
  }
  const Ints pairs = _mm256_maddubs_epi16(weights, activations);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
BATON_INLINE Floats ScaleDot(Ints dot, Floats scale, Floats unshift) {
  return Fma(AsFloats(dot), scale, unshift);
}
BATON_INLINE int32_t StoreQuants(int8_t* to, Floats x) {
  const Ints rounded = _mm256_cvtps_epi32(Max(x, Set1(-127)));
  const __m128i low = _mm256_castsi256_si128(rounded);
  const __m128i high = _mm256_extracti128_si256(rounded, 1);
  const __m128i words = _mm_packs_epi32(low, high);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
  __m128i sum = _mm_add_epi32(low, high);
  sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 1)));
}
BATON_INLINE void Transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  BATON_UNROLL for (int part = 0; part < 2; ++part) {
    __m256 a[4];
    BATON_UNROLL for (int i = 0; i < 4; ++i) {
      const float* source = from + i * from_stride + part * 4;
      a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(source)),
                                  _mm_loadu_ps(source + 4 * from_stride), 1);
    }
    const __m256d b0 = _mm256_castps_pd(_mm256_unpacklo_ps(a[0], a[1]));
    const __m256d b1 = _mm256_castps_pd(_mm256_unpackhi_ps(a[0], a[1]));
    const __m256d b2 = _mm256_castps_pd(_mm256_unpacklo_ps(a[2], a[3]));
    const __m256d b3 = _mm256_castps_pd(_mm256_unpackhi_ps(a[2], a[3]));
    float* target = to + part * 4 * to_stride;
    Store(target, _mm256_castpd_ps(_mm256_unpacklo_pd(b0, b2)));
    Store(target + to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(b0, b2)));
    Store(target + 2 * to_stride, _mm256_castpd_ps(_mm256_unpacklo_pd(b1, b3)));
    Store(target + 3 * to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(b1, b3)));
  }
}

#else

constexpr int kLanes = 4;
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));

BATON_INLINE Floats Set1(float x) { return Floats{x, x, x, x}; }
BATON_INLINE Floats Zero() { return Set1(0); }
BATON_INLINE Floats Load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
BATON_INLINE void Store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }
BATON_INLINE Floats LoadFirst(const float* from, int count) {
  Floats x = Zero();
  for (int i = 0; i < count; ++i) x[i] = from[i];
  return x;
}
BATON_INLINE void StoreFirst(float* to, Floats x, int count) {
  for (int i = 0; i < count; ++i) to[i] = x[i];
}
BATON_INLINE Floats KeepFirst(Floats x, int count, Floats other) {
  return (Ints{0, 1, 2, 3} < count) ? x : other;
}
BATON_INLINE Floats Add(Floats a, Floats b) { return a + b; }
BATON_INLINE Floats Sub(Floats a, Floats b) { return a - b; }
BATON_INLINE Floats Mul(Floats a, Floats b) { return a * b; }
BATON_INLINE Floats Div(Floats a, Floats b) { return a / b; }
BATON_INLINE Floats Fma(Floats a, Floats b, Floats c) { return a * b + c; }
BATON_INLINE Floats Max(Floats a, Floats b) { return (a > b) ? a : b; }
BATON_INLINE Ints MaxMagnitude(Ints largest, Floats x) {
  Ints bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffff;
  return (bits > largest) ? bits : largest;
}
BATON_INLINE float ReduceMagnitude(Ints x) {
  const int32_t low = x[0] > x[1] ? x[0] : x[1];
  const int32_t high = x[2] > x[3] ? x[2] : x[3];
  return std::bit_cast<float>(low > high ? low : high);
}
BATON_INLINE Ints ZeroInts() { return Ints{0, 0, 0, 0}; }
BATON_INLINE Floats ZeroBelow(Floats x, Floats test, Floats limit) {
  return (test < limit) ? Zero() : x;
}
BATON_INLINE float ReduceAdd(Floats x) { return (x[0] + x[2]) + (x[1] + x[3]); }
BATON_INLINE float ReduceMax(Floats x) {
  const float low = x[0] > x[1] ? x[0] : x[1];
  const float high = x[2] > x[3] ? x[2] : x[3];
  return low > high ? low : high;
}
BATON_INLINE Floats PowerOfTwo(Floats shifted) {
  typedef uint32_t Bits __attribute__((vector_size(16)));
  Bits bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  std::memcpy(&shifted, &bits, sizeof bits);
  return shifted;
}
BATON_INLINE Floats LoadHalves(const void* from) {
  uint16_t halves[4];
  std::memcpy(halves, from, sizeof halves);
  return Floats{HalfToFloat(halves[0]), HalfToFloat(halves[1]), HalfToFloat(halves[2]),
                HalfToFloat(halves[3])};
}
BATON_INLINE void StoreHalves(void* to, Floats x) {
  const uint16_t halves[4] = {FloatToHalf(x[0]), FloatToHalf(x[1]), FloatToHalf(x[2]),
                              FloatToHalf(x[3])};
  std::memcpy(to, halves, sizeof halves);
}
BATON_INLINE Floats AsFloats(Ints bits) {
  Floats x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
BATON_INLINE Floats EvenBf16(Ints pairs) {
  typedef uint32_t Bits __attribute__((vector_size(16)));
  return AsFloats(reinterpret_cast<Ints>(reinterpret_cast<Bits>(pairs) << 16));
}
BATON_INLINE Floats OddBf16(Ints pairs) { return AsFloats(pairs & -65536); }

BATON_INLINE Ints LoadInts(const void* from) {
  Ints x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
BATON_INLINE void StoreInts(void* to, Ints x) { std::memcpy(to, &x, sizeof x); }
BATON_INLINE Floats ToFloats(Ints x) { return __builtin_convertvector(x, Floats); }
BATON_INLINE Ints LowNibbles(Ints x) { return x & 0x0f0f0f0f; }
BATON_INLINE Ints HighNibbles(Ints x) { return LowNibbles(x >> 4); }
BATON_INLINE Ints LoadBytes(const uint8_t* from, bool is_signed) {
  Ints x;
  for (int i = 0; i < 4; ++i) x[i] = is_signed ? static_cast<int8_t>(from[i]) : int{from[i]};
  return x;
}
BATON_INLINE Ints BroadcastQuad(const int8_t* from) {
  int32_t quad;
  std::memcpy(&quad, from, 4);
  return Ints{quad, quad, quad, quad};
}
template <int kZero>
BATON_INLINE Ints DotStart(int32_t minus_sum) {
  const int32_t start = kShiftBits + minus_sum * kZero;
  return Ints{start, start, start, start};
}
template <int kZero>
BATON_INLINE Ints Dot(Ints sum, Ints weights, Ints activations) {
  // Even and odd bytes as 16-bit lanes, whose products fit: 255 * 127 is below 2^15.
  typedef int16_t Words __attribute__((vector_size(16)));
  typedef uint16_t Bits __attribute__((vector_size(16)));
  const Bits bytes = reinterpret_cast<Bits>(weights);
  const Bits signed_bytes = reinterpret_cast<Bits>(activations);
  const Words products[2] = {
      reinterpret_cast<Words>(bytes & 255) * (reinterpret_cast<Words>(signed_bytes << 8) >> 8),
      reinterpret_cast<Words>(bytes >> 8) * (reinterpret_cast<Words>(signed_bytes) >> 8)};
  BATON_UNROLL for (int i = 0; i < 2; ++i) {
    const Ints pairs = reinterpret_cast<Ints>(products[i]);
    sum += ((pairs << 16) >> 16) + (pairs >> 16);
  }
  return sum;
}
BATON_INLINE Floats ScaleDot(Ints dot, Floats scale, Floats) {
  return Mul(Sub(AsFloats(dot), Set1(kShift)), scale);  // Fma here rounds twice
}
BATON_INLINE int32_t StoreQuants(int8_t* to, Floats x) {
  int32_t sum = 0;
  for (int i = 0; i < 4; ++i) {
    const float clamped = x[i] > -127 ? x[i] : -127;
    // Adding kShift rounds to an integer.
    const auto quant = static_cast<int32_t>((clamped + kShift) - kShift);
    to[i] = static_cast<int8_t>(quant);
    sum += quant;
  }
  return sum;
}
BATON_INLINE void Transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) {
      to[column * to_stride + row] = from[row * from_stride + column];
    }
  }
}

#endif

constexpr int kPanelVectors = kPanelColumns / kLanes;

// 2^x for x <= 127; 0 below -126. Exactly 1 at 0. Relative error below 3e-7.
BATON_INLINE Floats Exp2(Floats x) {
  const Floats clamped = Max(Set1(-126), x);
  const Floats shifted = Add(clamped, Set1(kShift));                 // rounds to an integer
  const Floats fraction = Sub(clamped, Sub(shifted, Set1(kShift)));  // in [-0.5, 0.5]
  // Taylor: ln(2)^n / n!
  Floats power = Set1(1.5403530393381609e-4f);
  power = Fma(power, fraction, Set1(1.3333558146428443e-3f));
  power = Fma(power, fraction, Set1(9.6181291076284772e-3f));
  power = Fma(power, fraction, Set1(5.5504108664821580e-2f));
  power = Fma(power, fraction, Set1(2.4022650695910071e-1f));
  power = Fma(power, fraction, Set1(6.9314718055994531e-1f));
  power = Fma(power, fraction, Set1(1.0f));
  return ZeroBelow(Mul(power, PowerOfTwo(shifted)), x, Set1(-126));
}

}  // namespace baton::kernels::BATON_ISA
