// XXH3 of long inputs (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md), with a store beside
// each load. The library's own loops only read. Its secret and its finish are taken from its
// header.

#include "kv_transfer/stream_copy.h"

#include "common/status_macros.h"

#ifdef __x86_64__
#include <immintrin.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

namespace baton::kv_transfer {

#ifdef __x86_64__
namespace {

constexpr size_t kStripeBytes = 64;      // hashed at a time, and a cache line
constexpr size_t kStripesPerBlock = 16;  // of XXH3, not of KV: then the lanes are scrambled
constexpr size_t kLeastBytes = 256;      // XXH3 has other ways for up to 240
constexpr size_t kSecretStep = 8;        // further into the secret with each stripe
constexpr size_t kScrambleSecret = sizeof(XXH3_kSecret) - kStripeBytes;
constexpr size_t kLastSecret = kScrambleSecret - 7;
constexpr size_t kMergeSecret = 11;
// Fetched so far before it is loaded: while it hashes, a core does not look that far ahead itself.
// 2 KiB is 5 to 10% slower, none at all 40%.
constexpr size_t kAhead = 4'096;

struct Lanes {
  __m256i low, high;  // 4 of 64 bits each
};

__attribute__((target("avx2"))) inline __m256i Load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

__attribute__((target("avx2"))) inline __m256i Accumulate(__m256i lanes, __m256i data,
                                                          const uint8_t* secret) {
  const __m256i keyed = _mm256_xor_si256(data, Load(secret));
  const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
  const __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
  return _mm256_add_epi64(product, _mm256_add_epi64(lanes, swapped));
}

__attribute__((target("avx2"))) inline __m256i Scramble(__m256i lanes, const uint8_t* secret) {
  const __m256i prime = _mm256_set1_epi32(static_cast<int>(XXH_PRIME32_1));
  const __m256i shifted = _mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47));
  const __m256i keyed = _mm256_xor_si256(shifted, Load(secret));
  const __m256i low = _mm256_mul_epu32(keyed, prime);
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(keyed, 32), prime);
  return _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
}

// Moves one stripe; with kHash, takes it into the lanes.
template <bool kHash>
__attribute__((target("avx2"))) inline void Stripe(std::byte* to, const std::byte* from,
                                                   const uint8_t* secret, Lanes& lanes) {
  const __m256i low = Load(from);
  const __m256i high = Load(from + sizeof low);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), low);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to + sizeof low), high);
  if constexpr (kHash) {
    lanes.low = Accumulate(lanes.low, low, secret);
    lanes.high = Accumulate(lanes.high, high, secret + sizeof low);
  }
}

template <bool kHash>
__attribute__((target("avx2"))) uint64_t CopyStripes(std::byte* to, const std::byte* from,
                                                     size_t bytes) {
  alignas(32) uint64_t sums[8] = XXH3_INIT_ACC;
  Lanes lanes{Load(sums), Load(sums + 4)};
  const size_t last = bytes / kStripeBytes - 1;  // it has a secret of its own
  size_t stripe = 0;
  for (; stripe + kStripesPerBlock <= last; stripe += kStripesPerBlock) {
    const size_t at = stripe * kStripeBytes;
    // Not beyond the end: what lies there may never be wanted.
    const size_t ahead = at + kAhead + kStripesPerBlock * kStripeBytes <= bytes ? kAhead : 0;
#pragma GCC unroll 16
    for (size_t place = 0; place < kStripesPerBlock; ++place) {
      const size_t offset = at + place * kStripeBytes;
      _mm_prefetch(reinterpret_cast<const char*>(from) + offset + ahead, _MM_HINT_T0);
      Stripe<kHash>(to + offset, from + offset, XXH3_kSecret + place * kSecretStep, lanes);
    }
    if constexpr (kHash) {
      lanes.low = Scramble(lanes.low, XXH3_kSecret + kScrambleSecret);
      lanes.high = Scramble(lanes.high, XXH3_kSecret + kScrambleSecret + sizeof lanes.low);
    }
  }
  for (size_t place = 0; stripe < last; ++stripe, ++place) {
    Stripe<kHash>(to + stripe * kStripeBytes, from + stripe * kStripeBytes,
                  XXH3_kSecret + place * kSecretStep, lanes);
  }
  Stripe<kHash>(to + last * kStripeBytes, from + last * kStripeBytes, XXH3_kSecret + kLastSecret,
                lanes);
  _mm_sfence();  // before whatever tells others
  if constexpr (!kHash) return 0;
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums), lanes.low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums + 4), lanes.high);
  return XXH3_mergeAccs(sums, XXH3_kSecret + kMergeSecret, bytes * XXH_PRIME64_1);
}

}  // namespace

bool CanStreamCopy(std::span<const std::byte> to, std::span<const std::byte> from) {
  static const bool avx2 = __builtin_cpu_supports("avx2");
  return avx2 && to.size() == from.size() && to.size() >= kLeastBytes &&
         to.size() % kStripeBytes == 0 &&
         reinterpret_cast<uintptr_t>(to.data()) % kStripeBytes == 0;
}

uint64_t StreamCopy(std::span<std::byte> to, std::span<const std::byte> from, bool checksum) {
  BATON_CHECK(CanStreamCopy(to, from), "the caller asked");
  return checksum ? CopyStripes<true>(to.data(), from.data(), from.size())
                  : CopyStripes<false>(to.data(), from.data(), from.size());
}
#else
bool CanStreamCopy(std::span<const std::byte>, std::span<const std::byte>) { return false; }

uint64_t StreamCopy(std::span<std::byte>, std::span<const std::byte>, bool) {
  CheckFailed(__FILE__, __LINE__, "CanStreamCopy", "the caller asked");
}
#endif

}  // namespace baton::kv_transfer
