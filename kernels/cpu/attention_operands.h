#pragma once

// How attention reads keys and values, and how it multiplies them; see isa_attention.cc.

#include "kernels/cpu/attention_task.h"

namespace baton::kernels::BATON_ISA {

// ---- How keys and values are read and multiplied ------------------------------------------------
// Keys:   Get(step, vector): positions [vector * kLanes, ...) of the tile, one unit of each
// Values: Get(step, element): elements [element, ...) of one position, or of a pair; steps(count)
//         of them have the first `count` positions, and rest(count) says whether GetRest has one
//         more
// Math:   the vector type, and its multiplication by one number of a query or weight vector; sums
//         of kGroupSteps steps are joined with what was there before
// `next` is the same place of the next tile, to be fetched ahead.

// One sum after another, begun with what was summed up before.
struct PlainSums {
  using Sum = Floats;
  static constexpr int kSums = 1;
  static constexpr int32_t kGroupSteps = 1 << 30;
  BATON_INLINE Floats Begin(Floats before) { return before; }
  BATON_INLINE Floats End(Floats, Floats sum) { return sum; }
};

struct FloatMath : PlainSums {
  using Vector = Floats;
  static constexpr bool kPairs = false;
  BATON_INLINE Floats Broadcast(const float* at) { return Set1(*at); }
  BATON_INLINE Floats MultiplyAdd(Floats factor, Floats x, Floats sum) {
    return Fma(factor, x, sum);
  }
};

struct LoadedKeys {
  using Math = FloatMath;
  const float* keys;
  int32_t steps;
  __attribute__((always_inline)) Floats Get(int32_t step, int vector) const {
    return Load(keys + step * kTilePositions + vector * kLanes);
  }
};
struct LoadedValues {
  using Math = FloatMath;
  const float* values;
  int32_t padded_dim;
  static constexpr int32_t Steps(int32_t count) { return count; }
  static constexpr bool HasRest(int32_t) { return false; }
  __attribute__((always_inline)) Floats Get(int32_t step, int32_t element) const {
    return Load(values + step * padded_dim + element);
  }
};

template <KvDType kDType>
struct KeysInPlace {
  using Math = FloatMath;
  using Format = KvFormat<kDType>;
  const Tile& tile;
  const Tile& next;
  int64_t stride;
  int32_t steps;
  __attribute__((always_inline)) Floats Get(int32_t step, int vector) const {
    const int64_t offset = step / Format::kTogether * stride;
    Prefetch(next.keys[vector][0] + offset);
    return Format::Load(tile.keys[vector][0] + offset, step % Format::kTogether);
  }
};
template <KvDType kDType>
struct ValuesInPlace {
  using Math = FloatMath;
  using Format = KvFormat<kDType>;
  const Tile& tile;
  const Tile& next;
  static constexpr int32_t Steps(int32_t count) { return count; }
  static constexpr bool HasRest(int32_t) { return false; }
  __attribute__((always_inline)) Floats Get(int32_t step, int32_t element) const {
    const int64_t offset = element * kUnitBytes<kDType>;
    Prefetch(next.values[step] + offset);
    return Format::Load(tile.values[step] + offset, step % Format::kTogether);
  }
};

#if defined(__AVX512BF16__)

struct PairMath : PlainSums {
  using Vector = Ints;
  static constexpr bool kPairs = true;
  BATON_INLINE Ints Of(Ints pairs) { return pairs; }
  BATON_INLINE Ints Broadcast(const float* at) { return BroadcastPair(at); }
  BATON_INLINE Floats MultiplyAdd(Ints factor, Ints x, Floats sum) {
    return DotPairs(sum, factor, x);
  }
};

#if defined(__AMX_BF16__)

// What TDPBF16PS does, bit for bit, since denormals are zero (thread_pool.h): for 32 inputs at a
// time it sums up the products of even ones and those of odd ones, each one by one, and adds both
// together to what there was.
struct ChainMath {
  struct Chains {
    Floats even;
    Floats odd;
  };
  using Vector = Chains;
  using Sum = Chains;
  static constexpr bool kPairs = true;
  static constexpr int kSums = 2;
  static constexpr int32_t kGroupSteps = 16;
  BATON_INLINE Chains Of(Ints pairs) { return {EvenBf16(pairs), OddBf16(pairs)}; }
  BATON_INLINE Chains Broadcast(const float* at) { return Of(BroadcastPair(at)); }
  BATON_INLINE Chains MultiplyAdd(const Chains& factor, const Chains& x, const Chains& sum) {
    return {Fma(factor.even, x.even, sum.even), Fma(factor.odd, x.odd, sum.odd)};
  }
  BATON_INLINE Chains Begin(Floats) { return {Zero(), Zero()}; }
  BATON_INLINE Floats End(Floats before, const Chains& sum) {
    return Add(before, Add(sum.even, sum.odd));
  }
};

#endif

template <typename PairsMath, bool kHalves, bool kFetch>
struct PairKeys {
  using Math = PairsMath;
  const Tile& tile;
  const Tile& next;
  int64_t stride;
  int32_t steps;
  __attribute__((always_inline)) typename Math::Vector Get(int32_t step, int vector) const {
    const int64_t offset = step * stride;
    if (kFetch) Prefetch(next.keys[vector][0] + offset);
    const uint8_t* low = tile.keys[vector][0] + offset;
    return Math::Of(kHalves ? LoadPairsPair(low, tile.keys[vector][1] + offset) : LoadInts(low));
  }
};
template <typename PairsMath, bool kFetch>
struct PairValues {
  using Math = PairsMath;
  const Tile& tile;
  const Tile& next;
  int32_t head_dim;
  static constexpr int32_t Steps(int32_t count) { return count / 2; }
  static constexpr bool HasRest(int32_t count) { return count % 2 != 0; }
  __attribute__((always_inline)) Ints Load(int32_t step, int32_t element) const {
    if (kFetch) Prefetch(next.values[2 * step] + element * 4);
    return LoadPairs(tile.values[2 * step] + element * 4, head_dim - element);
  }
  __attribute__((always_inline)) typename Math::Vector Get(int32_t step, int32_t element) const {
    return Math::Of(Load(step, element));
  }
  // A pair whose second position is not seen.
  __attribute__((always_inline)) typename Math::Vector GetRest(int32_t step,
                                                               int32_t element) const {
    return Math::Of(FirstOfPairs(Load(step, element)));
  }
};

#endif

// sums += x * factors, for a step of kRows query vectors whose factors are `stride` apart.
template <typename Math, int kRows, int kVectors>
BATON_INLINE void MultiplyStep(const typename Math::Vector (&x)[kVectors], const float* factors,
                               int64_t stride, typename Math::Sum (&sums)[kRows][kVectors]) {
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    const auto factor = Math::Broadcast(factors + r * stride);
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Math::MultiplyAdd(factor, x[v], sums[r][v]);
    }
  }
}

template <KvDType kDType>
void LoadKeys(const Work& work, const Tile& tile, const Tile& next) {
  using Format = KvFormat<kDType>;
  const int64_t stride = KeyStride<kDType>(work.task);
  const bool halves = work.task.block_tokens < kLanes;
  for (int32_t d = 0; d < work.task.head_dim; ++d) {
    const int64_t offset = d / Format::kTogether * stride;
    const int i = d % Format::kTogether;
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const uint8_t* low = tile.keys[v][0] + offset;
      Prefetch(next.keys[v][0] + offset);
      Store(work.keys + d * kTilePositions + v * kLanes,
            halves ? Format::LoadPair(low, tile.keys[v][1] + offset, i) : Format::Load(low, i));
    }
  }
}

// Zeros from head_dim up to padded_dim.
template <KvDType kDType>
void LoadValues(const Work& work, const Tile& tile, const Tile& next) {
  using Format = KvFormat<kDType>;
  constexpr int kBytes = kUnitBytes<kDType>;
  const int32_t head_dim = work.task.head_dim;
  for (int32_t t = 0; t < tile.count; ++t) {
    const int i = t % Format::kTogether;
    float* to = work.values + t * work.padded_dim;
    int32_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) {
      Prefetch(next.values[t] + d * kBytes);
      Store(to + d, Format::Load(tile.values[t] + d * kBytes, i));
    }
    for (; d < work.padded_dim; d += kLanes) {
      alignas(64) uint8_t rest[4 * kLanes] = {};
      if (d < head_dim) {
        std::memcpy(rest, tile.values[t] + d * kBytes, (head_dim - d) * kBytes);
      }
      Store(to + d, Format::Load(rest, i));
    }
  }
}

}  // namespace baton::kernels::BATON_ISA
