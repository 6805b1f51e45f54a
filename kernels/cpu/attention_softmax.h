#pragma once

// From scores to weights, with a format's scales; see isa_attention.cc.

#include "kernels/cpu/attention_task.h"

namespace baton::kernels::BATON_ISA {

// A tile's scales by position, from the elements' end on; those of positions that nobody sees are
// not defined.
template <KvDType kDType>
void LoadScales(const AttentionTask& task, const Tile& tile, int64_t offset, float* scales) {
  offset += task.head_dim * KeyStride<kDType>(task);
  for (int32_t t = 0, i = 0; t < kTilePositions; t += task.block_tokens, ++i) {
    std::memcpy(scales + t, tile.blocks[i] + offset, task.block_tokens * sizeof(float));
  }
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    Store(scales + v * kLanes, Mul(Load(scales + v * kLanes), Set1(KvFormat<kDType>::kScale)));
  }
}

template <KvDType kDType>
void PrefetchScales(const AttentionTask& task, const Tile& next) {
  const int64_t data_bytes = task.head_dim * KeyStride<kDType>(task);
  for (int32_t t = 0; t < kTilePositions; t += kSmallestBlockTokens) {
    const int32_t half = t / (kLanes / 2);
    const int64_t in_block = t % task.block_tokens;
    const int64_t scale = data_bytes + in_block * int64_t{sizeof(float)};
    Prefetch(next.keys[half / 2][half % 2] - in_block * kUnitBytes<kDType> + scale);
    Prefetch(next.values[t] - in_block * task.head_dim * kUnitBytes<kDType> + scale);
  }
}

// A tile's scales by position, for formats that have them.
struct Scales {
  alignas(64) float keys[kTilePositions];
  alignas(64) float values[kTilePositions];
};

// 2^x for x <= kLargestWeightLog2, exactly 1 at 0. kRough: relative error below 5e-5, a fortieth of
// BF16's own.
template <bool kRough>
BATON_INLINE Floats ExpOfWeight(Floats x) {
#if defined(__AVX512F__)
  const Floats clamped = Max(Set1(-200), x);  // as good as minus infinity
  const Floats integer = _mm512_roundscale_ps(clamped, _MM_FROUND_TO_NEAREST_INT);
  const Floats fraction = Sub(clamped, integer);
  // Taylor, as in Exp2.
  Floats power = Set1(9.6181291076284772e-3f);
  if constexpr (!kRough) {
    power = Fma(Set1(1.5403530393381609e-4f), fraction, Set1(1.3333558146428443e-3f));
    power = Fma(power, fraction, Set1(9.6181291076284772e-3f));
  }
  power = Fma(power, fraction, Set1(5.5504108664821580e-2f));
  power = Fma(power, fraction, Set1(2.4022650695910071e-1f));
  power = Fma(power, fraction, Set1(6.9314718055994531e-1f));
  power = Fma(power, fraction, Set1(1.0f));
  return _mm512_scalef_ps(power, integer);
#else
  return Exp2(x);
#endif
}

// What a query vector has gathered, times 2^power.
static void Rescale(const Work& work, int32_t vector, float power, const State& state) {
  const Floats factor = Exp2(Set1(power));
  float* sums = state.sums + vector * kMaxLanes;
  Store(sums, Mul(Load(sums), factor));
  float* output = state.outputs + int64_t{vector} * work.padded_dim;
  for (int32_t d = 0; d < work.padded_dim; d += kLanes) {
    Store(output + d, Mul(Load(output + d), factor));
  }
}

// Turns the scores of one query vector's first `count` positions into weights, the others into 0,
// and rescales what it has gathered when its maximum grows by more than kLargestWeightLog2. With
// scales, scores and weights are multiplied by them (null: without).
template <bool kPairs>
BATON_INLINE void SoftmaxRow(const Work& work, int32_t vector, int32_t count, const Scales* scales,
                             const State& state) {
  const Floats infinity = Set1(-__builtin_inff());
  float* weights = work.weights + vector * kTilePositions;
  Floats scores[kTileVectors];
  Floats largest = infinity;
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    scores[v] = Load(weights + v * kLanes);
    if (scales != nullptr) scores[v] = Mul(scores[v], Load(scales->keys + v * kLanes));
    if (count < kTilePositions) scores[v] = KeepFirst(scores[v], count - v * kLanes, infinity);
    largest = Max(largest, scores[v]);
  }
  const float tile_maximum = ReduceMax(largest);
  const float old_maximum = state.maxima[vector];
  if (tile_maximum > old_maximum + kLargestWeightLog2) {
    state.maxima[vector] = tile_maximum;
    // Nothing is gathered yet in a segment's first tile.
    if (old_maximum > -__builtin_inff()) Rescale(work, vector, old_maximum - tile_maximum, state);
  }
  float* sums = state.sums + vector * kMaxLanes;
  Floats sum = Load(sums);
  const Floats maximum = Set1(state.maxima[vector]);
#if defined(__AVX512BF16__)
  if constexpr (kPairs) {
    BATON_UNROLL for (int v = 0; v < kTileVectors; v += 2) {
      const Ints pairs = RoundToPairs(ExpOfWeight<kPairs>(Sub(scores[v], maximum)),
                                      ExpOfWeight<kPairs>(Sub(scores[v + 1], maximum)));
      StoreInts(weights + v / 2 * kLanes, pairs);
      sum = Add(Add(sum, EvenBf16(pairs)), OddBf16(pairs));
    }
    return Store(sums, sum);
  }
#endif
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    const Floats weight = ExpOfWeight<kPairs>(Sub(scores[v], maximum));
    sum = Add(sum, weight);
    Store(weights + v * kLanes,
          scales != nullptr ? Mul(weight, Load(scales->values + v * kLanes)) : weight);
  }
  Store(sums, sum);
}

}  // namespace baton::kernels::BATON_ISA
