#include "kernels/cpu/isa_probes.h"

#include "kernels/cpu/simd.h"

#define BATON_STRING_INNER(x) #x
#define BATON_STRING(x) BATON_STRING_INNER(x)

namespace baton::kernels::BATON_ISA {
namespace {

constexpr int64_t kStepBytes = 256;  // of a stream

template <int kStreams>
uint64_t ReadStreams(const uint8_t* from, int64_t bytes, int64_t ahead_bytes) {
  constexpr int kVectorBytes = kLanes * 4;
  constexpr int kSums = 4;
  constexpr int kLine = 64;
  Ints sums[kSums];
  for (Ints& sum : sums) sum = LoadInts(from);
  const int64_t stream_bytes = bytes / kStreams;
  for (int64_t at = 0; at < stream_bytes; at += kStepBytes) {
    BATON_UNROLL for (int stream = 0; stream < kStreams; ++stream) {
      const uint8_t* step = from + stream * stream_bytes + at;
      if (ahead_bytes != 0) {
        BATON_UNROLL for (int line = 0; line < kStepBytes; line += kLine) {
          __builtin_prefetch(step + ahead_bytes + line);
        }
      }
      BATON_UNROLL for (int i = 0; i < kStepBytes / kVectorBytes; ++i) {
        sums[i % kSums] ^= LoadInts(step + i * kVectorBytes);
      }
    }
  }
  const Ints all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t first;
  std::memcpy(&first, &all, sizeof first);
  return first;
}

uint64_t Read(const uint8_t* from, int64_t bytes, int streams, int64_t ahead_bytes) {
  static_assert(kMaxProbeStreams == 4);
  if (streams == 4) return ReadStreams<4>(from, bytes, ahead_bytes);
  if (streams == 2) return ReadStreams<2>(from, bytes, ahead_bytes);
  return ReadStreams<1>(from, bytes, ahead_bytes);
}

// Enough independent sums to hide an operation's latency, and registers for all of them.
#if defined(__AVX512F__)
constexpr int kSums = 16;
#else
constexpr int kSums = 12;
#endif

// All sums tend to 0.001: neither denormal nor infinite.
float MultiplyAdd(int64_t rounds) {
  Floats sums[kSums];
  BATON_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = Set1(1.0f + static_cast<float>(i));
  const Floats factor = Set1(0.999f);
  const Floats addend = Set1(1e-6f);
  for (int64_t round = 0; round < rounds; ++round) {
    BATON_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = Fma(sums[i], factor, addend);
  }
  for (int i = 1; i < kSums; ++i) sums[0] = Add(sums[0], sums[i]);
  return ReduceAdd(sums[0]);
}
constexpr IsaProbes::Arithmetic kFp32 = {MultiplyAdd, int64_t{kSums} * kLanes * 2};

#if defined(__AVX512BF16__)
float DotBf16(int64_t rounds) {
  Floats sums[kSums];
  BATON_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = Set1(static_cast<float>(i));
  const auto one = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  const auto small = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3c00));
  for (int64_t round = 0; round < rounds; ++round) {
    BATON_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], one, small);
  }
  for (int i = 1; i < kSums; ++i) sums[0] = Add(sums[0], sums[i]);
  return ReduceAdd(sums[0]);
}
constexpr IsaProbes::Arithmetic kBf16 = {DotBf16, int64_t{kSums} * kLanes * 4};
#else
constexpr IsaProbes::Arithmetic kBf16 = {nullptr, 0};
#endif

#if defined(__AVX2__)
// The kernels' own Dot, with weights that need no correction of sign.
float DotInt8(int64_t rounds) {
  constexpr int kZero = 8;
  Ints sums[kSums];
  BATON_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = ZeroInts();
  const int8_t quad[4] = {1, -2, 3, -4};
  const Ints activations = BroadcastQuad(quad);
  Ints weights = LowNibbles(activations);
  for (int64_t round = 0; round < rounds; ++round) {
    BATON_UNROLL for (int i = 0; i < kSums; ++i) {
      __asm__ volatile("" : "+x"(weights));  // or the products would be taken out of the loop
      sums[i] = Dot<kZero>(sums[i], weights, activations);
    }
  }
  Floats total = Zero();
  for (int i = 0; i < kSums; ++i) total = Add(total, ToFloats(sums[i]));
  return ReduceAdd(total);
}
constexpr IsaProbes::Arithmetic kInt8 = {DotInt8, int64_t{kSums} * kLanes * 8};
#else
constexpr IsaProbes::Arithmetic kInt8 = {nullptr, 0};
#endif

}  // namespace

const IsaProbes& GetIsaProbes() {
  static const IsaProbes probes = {BATON_STRING(BATON_ISA), Read, kFp32, kBf16, kInt8};
  return probes;
}

}  // namespace baton::kernels::BATON_ISA
