#pragma once

// How the KV formats are read and written, kLanes elements at a time, for the instruction set that
// this file is compiled for (see simd.h). All instruction sets decode and round to the same bits.

#include "kernels/cpu/simd.h"
#include "kernels/kv_dtype.h"

namespace baton::kernels::BATON_ISA {

// ---- Elements as they lie in memory: kLanes of 1, 2 or 4 bytes ----------------------------------
// The Pair functions take one half of the lanes from each place: for blocks of fewer tokens than
// lanes.

#if defined(__AVX512F__)

using Raw1 = __m128i;
using Raw2 = __m256i;

BATON_INLINE Raw1 LoadRaw1(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
BATON_INLINE Raw1 LoadRaw1Pair(const uint8_t* low, const uint8_t* high) {
  return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(low)),
                            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high)));
}
BATON_INLINE Raw2 LoadRaw2(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
BATON_INLINE Raw2 LoadRaw2Pair(const uint8_t* low, const uint8_t* high) {
  return _mm256_set_m128i(LoadRaw1(high), LoadRaw1(low));
}
BATON_INLINE Floats LoadFloatPair(const uint8_t* low, const uint8_t* high) {
  const __m512 both = _mm512_castps256_ps512(_mm256_castsi256_ps(LoadRaw2(low)));
  return _mm512_insertf32x8(both, _mm256_castsi256_ps(LoadRaw2(high)), 1);
}
BATON_INLINE Floats DecodeHalves(Raw2 raw) { return _mm512_cvtph_ps(raw); }
BATON_INLINE Floats DecodeInt8(Raw1 raw) { return ToFloats(_mm512_cvtepi8_epi32(raw)); }
// Moved by 7 bits, an E4M3 number is a half of 2^-8 its value, but for a second sign in bit 14.
BATON_INLINE Floats DecodeFp8(Raw1 raw) {
  const __m256i moved = _mm256_slli_epi16(_mm256_cvtepi8_epi16(raw), 7);
  return _mm512_cvtph_ps(_mm256_andnot_si256(_mm256_set1_epi16(0x4000), moved));
}

#else

#if defined(__AVX2__)

using Raw1 = __m128i;  // of which 8 bytes are used
using Raw2 = __m128i;

BATON_INLINE Raw1 LoadRaw1(const uint8_t* from) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
}
BATON_INLINE Raw2 LoadRaw2(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
BATON_INLINE Floats DecodeHalves(Raw2 raw) { return _mm256_cvtph_ps(raw); }
BATON_INLINE Floats DecodeInt8(Raw1 raw) { return ToFloats(_mm256_cvtepi8_epi32(raw)); }
BATON_INLINE Floats DecodeFp8(Raw1 raw) {
  const __m128i moved = _mm_slli_epi16(_mm_cvtepi8_epi16(raw), 7);
  return _mm256_cvtph_ps(_mm_andnot_si128(_mm_set1_epi16(0x4000), moved));
}

#else

typedef uint8_t Raw1 __attribute__((vector_size(4)));
typedef uint16_t Raw2 __attribute__((vector_size(8)));

BATON_INLINE Raw1 LoadRaw1(const uint8_t* from) {
  Raw1 raw;
  std::memcpy(&raw, from, sizeof raw);
  return raw;
}
BATON_INLINE Raw2 LoadRaw2(const uint8_t* from) {
  Raw2 raw;
  std::memcpy(&raw, from, sizeof raw);
  return raw;
}
BATON_INLINE Floats DecodeHalves(Raw2 raw) {
  return Floats{HalfToFloat(raw[0]), HalfToFloat(raw[1]), HalfToFloat(raw[2]), HalfToFloat(raw[3])};
}
BATON_INLINE Floats DecodeInt8(Raw1 raw) {
  return ToFloats((__builtin_convertvector(raw, Ints) << 24) >> 24);
}
BATON_INLINE Floats DecodeFp8(Raw1 raw) {
  const Ints bits = __builtin_convertvector(raw, Ints);
  const Ints magnitude = bits & 0x7f;
  constexpr int32_t kBiasChange = (127 - 7 - 8) << 23;  // 2^-8 of its value, as above
  const Ints normal = (magnitude << 20) + kBiasChange;
  const Ints subnormal = reinterpret_cast<Ints>(Mul(ToFloats(magnitude), Set1(0x1p-17f)));
  return AsFloats(((bits & 0x80) << 24) | ((magnitude < 8) ? subnormal : normal));
}

#endif

// Every block fills a vector: there are no pairs.
BATON_INLINE Raw1 LoadRaw1Pair(const uint8_t* low, const uint8_t*) { return LoadRaw1(low); }
BATON_INLINE Raw2 LoadRaw2Pair(const uint8_t* low, const uint8_t*) { return LoadRaw2(low); }
BATON_INLINE Floats LoadFloatPair(const uint8_t* low, const uint8_t*) {
  return Load(reinterpret_cast<const float*>(low));
}

#endif

// ---- Rounding, the same code for all instruction sets -------------------------------------------

typedef int32_t LaneInts __attribute__((vector_size(4 * kLanes)));
typedef uint32_t LaneBits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t LaneShorts __attribute__((vector_size(2 * kLanes)));
typedef uint8_t LaneBytes __attribute__((vector_size(kLanes)));

// The rounded number in the upper half of each lane; the lower half is to be dropped.
BATON_INLINE LaneBits RoundBf16(Floats x) {
  const LaneBits bits = reinterpret_cast<LaneBits>(x);
  const LaneBits rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const LaneBits quiet = bits | 0x400000;
  return ((bits & 0x7fffffff) > 0x7f800000) ? quiet : rounded;
}
BATON_INLINE void StoreBf16(uint8_t* to, Floats x) {
  const LaneShorts high = __builtin_convertvector(RoundBf16(x) >> 16, LaneShorts);
  std::memcpy(to, &high, sizeof high);
}
// kLanes pairs: even[0], odd[0], even[1], ...
BATON_INLINE void StoreBf16Pairs(uint8_t* to, Floats even, Floats odd) {
  const LaneBits pairs = (RoundBf16(even) >> 16) | (RoundBf16(odd) & 0xffff0000);
  std::memcpy(to, &pairs, sizeof pairs);
}

// E4M3 without infinities; what is too large becomes the largest number. NaN becomes anything.
BATON_INLINE void StoreFp8(uint8_t* to, Floats x) {
  const LaneBits bits = reinterpret_cast<LaneBits>(x);
  const LaneInts magnitude = reinterpret_cast<LaneInts>(bits & 0x7fffffff);
  constexpr int32_t kBiasChange = (127 - 7) << 23;
  constexpr int32_t kLargestCode = 0x7e;
  const LaneInts rounded = (magnitude - kBiasChange + 0x7ffff + ((magnitude >> 20) & 1)) >> 20;
  const LaneInts normal = (rounded > kLargestCode) ? LaneInts{} + kLargestCode : rounded;
  // Below 2^-6: adding 2^14 leaves multiples of 2^-9 at the end of the mantissa.
  const Floats shift = Set1(0x1p14f);
  const LaneInts subnormal =
      reinterpret_cast<LaneInts>(Add(reinterpret_cast<Floats>(magnitude), shift)) -
      reinterpret_cast<LaneInts>(shift);
  const LaneInts smallest_normal = reinterpret_cast<LaneInts>(Set1(0x1p-6f));
  const LaneInts code = (magnitude < smallest_normal) ? subnormal : normal;
  const LaneBytes bytes =
      __builtin_convertvector(reinterpret_cast<LaneBits>(code) | ((bits >> 24) & 0x80), LaneBytes);
  std::memcpy(to, &bytes, sizeof bytes);
}

// ---- Pairs of BF16 ------------------------------------------------------------------------------

#if defined(__AVX512BF16__)
constexpr bool kMultipliesBf16 = true;
// sum + the two products of each lane's pairs. Subnormal numbers count as 0.
BATON_INLINE Floats DotPairs(Floats sum, Ints a, Ints b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
// 2 * kLanes floats, rounded to nearest even.
BATON_INLINE Ints RoundToPairs(Floats low, Floats high) {
  return reinterpret_cast<Ints>(_mm512_cvtne2ps_pbh(high, low));
}
BATON_INLINE Ints BroadcastPair(const float* at) {
  int32_t pair;
  std::memcpy(&pair, at, sizeof pair);
  return _mm512_set1_epi32(pair);
}
BATON_INLINE Ints LoadPairs(const uint8_t* from, int lanes) {
  return _mm512_maskz_loadu_epi32(FirstMask(lanes < kLanes ? lanes : kLanes), from);
}
BATON_INLINE Ints LoadPairsPair(const uint8_t* low, const uint8_t* high) {
  return _mm512_castps_si512(LoadFloatPair(low, high));
}
BATON_INLINE Ints FirstOfPairs(Ints pairs) {
  return _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff));
}
#else
constexpr bool kMultipliesBf16 = false;
#endif

// ---- Formats ------------------------------------------------------------------------------------
//   kBytes        of an element
//   kTogether     KvDTypeTraits::together: a unit is so many elements
//   kLargest      the number of a vector's largest element, in formats with scales, else 0
//   kScale        what a loaded number is to be multiplied by, beside its scale
//   Load(from, i)           element i of each of kLanes units
//   LoadPair(low, high, i)  one half of the lanes from each
//   Store(to, x)  kLanes elements, rounded to nearest, ties to even
template <KvDType kDType>
struct KvFormat;

template <>
struct KvFormat<KvDType::kF32> {
  static constexpr int kBytes = 4;
  static constexpr int kTogether = 1;
  static constexpr float kLargest = 0;
  static constexpr float kScale = 1;
  BATON_INLINE Floats Load(const uint8_t* from, int) {
    return BATON_ISA::Load(reinterpret_cast<const float*>(from));
  }
  BATON_INLINE Floats LoadPair(const uint8_t* low, const uint8_t* high, int) {
    return LoadFloatPair(low, high);
  }
  BATON_INLINE void Store(uint8_t* to, Floats x) { std::memcpy(to, &x, sizeof x); }
};

template <>
struct KvFormat<KvDType::kF16> {
  static constexpr int kBytes = 2;
  static constexpr int kTogether = 1;
  static constexpr float kLargest = 0;
  static constexpr float kScale = 1;
  BATON_INLINE Floats Load(const uint8_t* from, int) { return DecodeHalves(LoadRaw2(from)); }
  BATON_INLINE Floats LoadPair(const uint8_t* low, const uint8_t* high, int) {
    return DecodeHalves(LoadRaw2Pair(low, high));
  }
  BATON_INLINE void Store(uint8_t* to, Floats x) { StoreHalves(to, x); }
};

template <>
struct KvFormat<KvDType::kBF16> {
  static constexpr int kBytes = 2;
  static constexpr int kTogether = 2;
  static constexpr float kLargest = 0;
  static constexpr float kScale = 1;
  BATON_INLINE Floats Load(const uint8_t* from, int i) {
    const Ints pairs = LoadInts(from);
    return i == 0 ? EvenBf16(pairs) : OddBf16(pairs);
  }
  BATON_INLINE Floats LoadPair(const uint8_t* low, const uint8_t* high, int i) {
    const Ints pairs = reinterpret_cast<Ints>(LoadFloatPair(low, high));
    return i == 0 ? EvenBf16(pairs) : OddBf16(pairs);
  }
  BATON_INLINE void Store(uint8_t* to, Floats x) { StoreBf16(to, x); }
};

template <>
struct KvFormat<KvDType::kInt8> {
  static constexpr int kBytes = 1;
  static constexpr int kTogether = 1;
  static constexpr float kLargest = 127;
  static constexpr float kScale = 1;
  BATON_INLINE Floats Load(const uint8_t* from, int) { return DecodeInt8(LoadRaw1(from)); }
  BATON_INLINE Floats LoadPair(const uint8_t* low, const uint8_t* high, int) {
    return DecodeInt8(LoadRaw1Pair(low, high));
  }
  BATON_INLINE void Store(uint8_t* to, Floats x) { StoreQuants(reinterpret_cast<int8_t*>(to), x); }
};

template <>
struct KvFormat<KvDType::kFp8> {
  static constexpr int kBytes = 1;
  static constexpr int kTogether = 1;
  static constexpr float kLargest = 448;
  static constexpr float kScale = 256;
  BATON_INLINE Floats Load(const uint8_t* from, int) { return DecodeFp8(LoadRaw1(from)); }
  BATON_INLINE Floats LoadPair(const uint8_t* low, const uint8_t* high, int) {
    return DecodeFp8(LoadRaw1Pair(low, high));
  }
  BATON_INLINE void Store(uint8_t* to, Floats x) { StoreFp8(to, x); }
};

}  // namespace baton::kernels::BATON_ISA
