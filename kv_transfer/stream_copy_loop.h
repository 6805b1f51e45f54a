#pragma once

// The loop of StreamCopy for one instruction set: included by one source for each, which is
// compiled for it and names it BATON_STREAM_ISA. Nothing but intrinsics and xxHash is used here,
// for whatever inline function such a source shares with others could be the one that the linker
// keeps.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kv_transfer/stream_copy_isa.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace baton::kv_transfer::BATON_STREAM_ISA {
namespace {

constexpr size_t kStripeBytes = 64;      // hashed at a time, and a cache line
constexpr size_t kStripesPerBlock = 16;  // of XXH3, not of KV: then the lanes are scrambled
constexpr size_t kSecretStep = 8;        // further into the secret with each stripe
constexpr size_t kScrambleSecret = sizeof(XXH3_kSecret) - kStripeBytes;
constexpr size_t kLastSecret = kScrambleSecret - 7;
constexpr size_t kMergeSecret = 11;
// Fetched into the second-level cache so far before it is loaded: while it hashes, a core does not
// look that far ahead itself. On an Intel core of the AVX-512 kind, 64 KiB blocks over 256 MiB: 9.5
// GB/s; into the first-level cache 8.9, from 1 KiB ahead 8.3, without 7.9.
constexpr size_t kAhead = 4'096;

// XXH3's eight sums of 64 bits each.
#ifdef __AVX512F__
struct Lanes {
  __m512i all;
};

inline Lanes LoadLanes(const void* from) { return {_mm512_loadu_si512(from)}; }
inline void StoreLanes(uint64_t* to, const Lanes& lanes) { _mm512_storeu_si512(to, lanes.all); }

// Moves one stripe; with kHash, takes it into the lanes.
template <bool kHash>
inline void Stripe(char* to, const char* from, const uint8_t* secret, Lanes& lanes) {
  const __m512i data = _mm512_loadu_si512(from);
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), data);
  if constexpr (kHash) {
    const __m512i keyed = _mm512_xor_si512(data, _mm512_loadu_si512(secret));
    const __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
    const __m512i swapped = _mm512_shuffle_epi32(data, _MM_PERM_BADC);
    lanes.all = _mm512_add_epi64(product, _mm512_add_epi64(lanes.all, swapped));
  }
}

inline void Scramble(Lanes& lanes, const uint8_t* secret) {
  const __m512i prime = _mm512_set1_epi32(static_cast<int>(XXH_PRIME32_1));
  const __m512i shifted = _mm512_xor_si512(lanes.all, _mm512_srli_epi64(lanes.all, 47));
  const __m512i keyed = _mm512_xor_si512(shifted, _mm512_loadu_si512(secret));
  const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(keyed, 32), prime);
  lanes.all = _mm512_add_epi64(_mm512_mul_epu32(keyed, prime), _mm512_slli_epi64(high, 32));
}
#else
struct Lanes {
  __m256i low, high;
};

inline __m256i Load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline Lanes LoadLanes(const uint64_t* from) { return {Load(from), Load(from + 4)}; }
inline void StoreLanes(uint64_t* to, const Lanes& lanes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), lanes.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4), lanes.high);
}

inline __m256i Accumulate(__m256i lanes, __m256i data, const uint8_t* secret) {
  const __m256i keyed = _mm256_xor_si256(data, Load(secret));
  const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
  const __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
  return _mm256_add_epi64(product, _mm256_add_epi64(lanes, swapped));
}

// Moves one stripe; with kHash, takes it into the lanes.
template <bool kHash>
inline void Stripe(char* to, const char* from, const uint8_t* secret, Lanes& lanes) {
  const __m256i low = Load(from);
  const __m256i high = Load(from + sizeof low);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), low);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to + sizeof low), high);
  if constexpr (kHash) {
    lanes.low = Accumulate(lanes.low, low, secret);
    lanes.high = Accumulate(lanes.high, high, secret + sizeof low);
  }
}

inline __m256i ScrambleHalf(__m256i lanes, const uint8_t* secret) {
  const __m256i prime = _mm256_set1_epi32(static_cast<int>(XXH_PRIME32_1));
  const __m256i shifted = _mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47));
  const __m256i keyed = _mm256_xor_si256(shifted, Load(secret));
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(keyed, 32), prime);
  return _mm256_add_epi64(_mm256_mul_epu32(keyed, prime), _mm256_slli_epi64(high, 32));
}
inline void Scramble(Lanes& lanes, const uint8_t* secret) {
  lanes.low = ScrambleHalf(lanes.low, secret);
  lanes.high = ScrambleHalf(lanes.high, secret + sizeof lanes.low);
}
#endif

template <bool kHash>
uint64_t CopyStripes(char* to, const char* from, size_t bytes) {
  uint64_t sums[8] = XXH3_INIT_ACC;
  Lanes lanes = LoadLanes(sums);
  const size_t last = bytes / kStripeBytes - 1;  // it has a secret of its own
  size_t stripe = 0;
  for (; stripe + kStripesPerBlock <= last; stripe += kStripesPerBlock) {
    const size_t at = stripe * kStripeBytes;
    // Not beyond the end: what lies there may never be wanted.
    const size_t ahead = at + kAhead + kStripesPerBlock * kStripeBytes <= bytes ? kAhead : 0;
#pragma GCC unroll 16
    for (size_t place = 0; place < kStripesPerBlock; ++place) {
      const size_t offset = at + place * kStripeBytes;
      _mm_prefetch(from + offset + ahead, _MM_HINT_T1);
      Stripe<kHash>(to + offset, from + offset, XXH3_kSecret + place * kSecretStep, lanes);
    }
    if constexpr (kHash) Scramble(lanes, XXH3_kSecret + kScrambleSecret);
  }
  for (size_t place = 0; stripe < last; ++stripe, ++place) {
    Stripe<kHash>(to + stripe * kStripeBytes, from + stripe * kStripeBytes,
                  XXH3_kSecret + place * kSecretStep, lanes);
  }
  Stripe<kHash>(to + last * kStripeBytes, from + last * kStripeBytes, XXH3_kSecret + kLastSecret,
                lanes);
  _mm_sfence();  // before whatever tells others
  if constexpr (!kHash) return 0;
  StoreLanes(sums, lanes);
  return XXH3_mergeAccs(sums, XXH3_kSecret + kMergeSecret, bytes * XXH_PRIME64_1);
}

}  // namespace

uint64_t StreamCopy(char* to, const char* from, size_t bytes, bool checksum) {
  return checksum ? CopyStripes<true>(to, from, bytes) : CopyStripes<false>(to, from, bytes);
}

}  // namespace baton::kv_transfer::BATON_STREAM_ISA
