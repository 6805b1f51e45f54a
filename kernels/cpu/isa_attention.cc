// Attention over a paged cache.
//
// A task's query vectors meet one tile of 64 positions after another. Many query vectors have a
// tile's keys and values made float once for all of them; a few, as in decode, read both where they
// lie. For each query vector the arithmetic depends only on its own position: tiles and segments
// lie at fixed absolute positions, and each sum has one order. Positions that a query vector may
// not see are masked by selection, and never multiplied, so what lies there (NaN, or a later
// token's value) has no effect.
//
// Sums are of float products; where the machine multiplies pairs of BF16, those of a BF16 cache are
// of such pairs, with queries and weights rounded to BF16, for one query vector as for many.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_simd.h"

namespace baton::kernels::BATON_ISA {
namespace {

// Query vectors that are computed together, and vectors of positions (scores) or of elements
// (values) for each: as many sums as there are registers. Up to kWideRows query vectors take
// kMostVectors at once, more of them half.
#if defined(__AVX512F__)
constexpr int kWideRows = 6;
constexpr int kMostRows = 8;
constexpr int kMostVectors = 4;
#elif defined(__AVX2__)
constexpr int kWideRows = 5;
constexpr int kMostRows = 5;
constexpr int kMostVectors = 2;
#else
constexpr int kWideRows = 4;
constexpr int kMostRows = 4;
constexpr int kMostVectors = 2;
#endif
template <int kRows>
constexpr int kVectorsFor = kRows <= kWideRows ? kMostVectors : kMostVectors / 2;
constexpr int kInPlaceVectors = 8;
constexpr int kSmallestBlockTokens = 8;
constexpr int kTileVectors = kTilePositions / kLanes;
// Weights are relative to a maximum that may have grown by so much since: few vectors are rescaled
// more than once then, and floats lose nothing by it.
constexpr float kLargestWeightLog2 = 8;
constexpr float kLog2E = 1.44269504088896341f;

BATON_INLINE int32_t Min(int32_t a, int32_t b) { return a < b ? a : b; }

// The running softmax of all query vectors of a task.
struct State {
  float* outputs;  // [vectors][padded_dim]
  float* sums;     // [vectors][kMaxLanes], of which kLanes are used
  float* maxima;   // [vectors]: largest scores, or up to kLargestWeightLog2 less
};

struct Work {
  const AttentionTask& task;
  int32_t vectors;     // query vector i is row i / heads, head i % heads
  int32_t padded_dim;  // a multiple of kLanes
  float* queries;  // [vectors][padded_dim], scaled for a softmax of base 2; or half as many pairs
  float* weights;  // [vectors][kTilePositions]: scores, then weights or pairs of them
  float* keys;     // [head_dim][kTilePositions], unless in_place
  float* values;   // [kTilePositions][padded_dim], unless in_place
  bool in_place;   // keys and values are read where they lie in the cache

  int32_t PositionOf(int32_t vector) const { return task.first_position + vector / task.heads; }
  int32_t last_position() const { return task.first_position + task.rows - 1; }
  // The first query vector that sees `position`; `vectors` or more if none does.
  int32_t FirstSeeing(int32_t position) const {
    return position <= task.first_position ? 0 : (position - task.first_position) * task.heads;
  }
};

State StateAt(float* memory, int32_t vectors, int32_t padded_dim) {
  float* sums = memory + int64_t{vectors} * padded_dim;
  return {memory, sums, sums + vectors * kMaxLanes};
}

Work PrepareWork(const AttentionTask& task) {
  const int32_t padded = PaddedDim(task.head_dim);
  float* queries = task.scratch + 2 * SoftmaxStateFloats(kMaxQueryVectors, padded);
  float* weights = queries + kMaxQueryVectors * padded;
  float* keys = weights + kMaxQueryVectors * kTilePositions;
  const int32_t vectors = task.rows * task.heads;
  const bool pairs = kMultipliesBf16 && task.dtype == KvDType::kBF16;
  const float scale = task.scale * kLog2E;
  for (int32_t i = 0; i < vectors; ++i) {
    const float* from =
        task.q + i / task.heads * task.row_stride + i % task.heads * int64_t{task.head_dim};
    float* to = queries + i * padded;
    if (pairs) {
      for (int32_t d = 0; d < task.head_dim; d += kLanes) {
        const Floats part = LoadFirst(from + d, Min(kLanes, task.head_dim - d));
        StoreBf16(reinterpret_cast<uint8_t*>(to) + 2 * d, Mul(part, Set1(scale)));
      }
    } else {
      for (int32_t d = 0; d < task.head_dim; ++d) to[d] = from[d] * scale;
    }
  }
  const bool in_place = pairs || (vectors <= kInPlaceVectors && task.head_dim == padded &&
                                  task.block_tokens >= kLanes);
  return {task, vectors, padded, queries, weights, keys, keys + kTilePositions * padded, in_place};
}

// ---- One tile ---------------------------------------------------------------------------------

// Where a tile's keys and values lie in the cache.
struct Tile {
  int32_t begin;
  int32_t count;  // positions that any query vector sees
  // The first units of a vector of positions' keys: of its first half, and of its second.
  const uint8_t* keys[kTileVectors][2];
  const uint8_t* values[kTilePositions];  // units that begin with each position (kTogether)
  const uint8_t* blocks[kTilePositions / kSmallestBlockTokens];
};

template <KvDType kDType>
constexpr int kUnitBytes = KvFormat<kDType>::kTogether* KvFormat<kDType>::kBytes;

// From one element's (unit's) keys to the next.
template <KvDType kDType>
BATON_INLINE int64_t KeyStride(const AttentionTask& task) {
  return int64_t{task.block_tokens} * kUnitBytes<kDType>;
}

// Blocks after the one of the last seen position repeat the first, so that whole tiles can be read.
template <KvDType kDType>
void FindTile(const AttentionTask& task, int32_t begin, Tile& tile) {
  constexpr int kTogether = KvFormat<kDType>::kTogether;
  tile.begin = begin;
  tile.count = Min(kTilePositions, task.first_position + task.rows - begin);
  const int64_t row_bytes = int64_t{task.head_dim} * kUnitBytes<kDType>;
  for (int32_t t = 0, i = 0; t < kTilePositions; t += task.block_tokens, ++i) {
    tile.blocks[i] =
        t < tile.count
            ? task.slab + task.block_table[(begin + t) / task.block_tokens] * task.block_bytes
            : tile.blocks[0];
    const uint8_t* values = tile.blocks[i] + task.value_offset;
    for (int32_t j = 0; j < task.block_tokens; ++j) {
      tile.values[t + j] = values + j / kTogether * row_bytes;
    }
  }
  for (int32_t half = 0; half < 2 * kTileVectors; ++half) {
    const int32_t t = half * (kLanes / 2);
    tile.keys[half / 2][half % 2] = tile.blocks[t / task.block_tokens] + task.key_offset +
                                    t % task.block_tokens * kUnitBytes<kDType>;
  }
}

BATON_INLINE void Prefetch(const void* at) {
#if defined(__AVX2__)
  // Into the second-level cache: more can be on the way to it than to the first.
  _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1);
#else
  static_cast<void>(at);
#endif
}

// ---- How keys and values are read and multiplied ------------------------------------------------
// Keys:   Get(step, vector): positions [vector * kLanes, ...) of the tile, one unit of each
// Values: Get(step, element): elements [element, ...) of one position, or of a pair; steps(count)
//         of them have the first `count` positions, and rest(count) says whether GetRest has one
//         more
// Math:   the vector type, and its multiplication by one number of a query or weight vector
// `next` is the same place of the next tile, to be fetched ahead.

struct FloatMath {
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

struct PairMath {
  using Vector = Ints;
  static constexpr bool kPairs = true;
  BATON_INLINE Ints Broadcast(const float* at) { return BroadcastPair(at); }
  BATON_INLINE Floats MultiplyAdd(Ints factor, Ints x, Floats sum) {
    return DotPairs(sum, factor, x);
  }
};

template <bool kHalves, bool kFetch>
struct PairKeys {
  using Math = PairMath;
  const Tile& tile;
  const Tile& next;
  int64_t stride;
  int32_t steps;
  __attribute__((always_inline)) Ints Get(int32_t step, int vector) const {
    const int64_t offset = step * stride;
    if (kFetch) Prefetch(next.keys[vector][0] + offset);
    const uint8_t* low = tile.keys[vector][0] + offset;
    return kHalves ? LoadPairsPair(low, tile.keys[vector][1] + offset) : LoadInts(low);
  }
};
template <bool kFetch>
struct PairValues {
  using Math = PairMath;
  const Tile& tile;
  const Tile& next;
  int32_t head_dim;
  static constexpr int32_t Steps(int32_t count) { return count / 2; }
  static constexpr bool HasRest(int32_t count) { return count % 2 != 0; }
  __attribute__((always_inline)) Ints Get(int32_t step, int32_t element) const {
    if (kFetch) Prefetch(next.values[2 * step] + element * 4);
    return LoadPairs(tile.values[2 * step] + element * 4, head_dim - element);
  }
  // A pair whose second position is not seen.
  __attribute__((always_inline)) Ints GetRest(int32_t step, int32_t element) const {
    return FirstOfPairs(Get(step, element));
  }
};

#endif

// sums += x * factors, for a step of kRows query vectors whose factors are `stride` apart.
template <typename Math, int kRows, int kVectors>
BATON_INLINE void MultiplyStep(const typename Math::Vector (&x)[kVectors], const float* factors,
                               int64_t stride, Floats (&sums)[kRows][kVectors]) {
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

// Scores of kRows query vectors with all positions of the tile.
template <int kRows, typename Keys>
BATON_INLINE void ScoreRows(const Work& work, int32_t first, const Keys& keys) {
  using Math = typename Keys::Math;
  const float* queries = work.queries + first * work.padded_dim;
  constexpr int kVectors = kVectorsFor<kRows>;
  BATON_UNROLL for (int vector = 0; vector < kTileVectors; vector += kVectors) {
    Floats scores[kRows][kVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) scores[r][v] = Zero();
    }
    for (int32_t step = 0; step < keys.steps; ++step) {
      typename Math::Vector key[kVectors];
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) key[v] = keys.Get(step, vector + v);
      MultiplyStep<Math>(key, queries + step, work.padded_dim, scores);
    }
    float* out = work.weights + first * kTilePositions + vector * kLanes;
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        Store(out + r * kTilePositions + v * kLanes, scores[r][v]);
      }
    }
  }
}

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
void Rescale(const Work& work, int32_t vector, float power, const State& state) {
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

// outputs += weights * values of the first `count` positions, for kRows query vectors and kVectors
// vectors of the head's elements from `element` on.
template <int kRows, int kVectors, typename Values>
BATON_INLINE void AddValues(const Work& work, int32_t first, int32_t count, int32_t element,
                            const Values& values, const State& state) {
  using Math = typename Values::Math;
  float* outputs = state.outputs + int64_t{first} * work.padded_dim + element;
  const float* weights = work.weights + first * kTilePositions;
  Floats sums[kRows][kVectors];
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Load(outputs + r * work.padded_dim + v * kLanes);
    }
  }
  const int32_t steps = Values::Steps(count);
  typename Math::Vector value[kVectors];
  for (int32_t step = 0; step < steps; ++step) {
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      value[v] = values.Get(step, element + v * kLanes);
    }
    MultiplyStep<Math>(value, weights + step, kTilePositions, sums);
  }
  if constexpr (Math::kPairs) {
    if (Values::HasRest(count)) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        value[v] = values.GetRest(steps, element + v * kLanes);
      }
      MultiplyStep<Math>(value, weights + steps, kTilePositions, sums);
    }
  }
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      Store(outputs + r * work.padded_dim + v * kLanes, sums[r][v]);
    }
  }
}

template <int kRows, typename Values>
BATON_INLINE void ValueRows(const Work& work, int32_t first, int32_t count, const Values& values,
                            const State& state) {
  constexpr int kVectors = kVectorsFor<kRows>;
  int32_t element = 0;
  for (; element + kVectors * kLanes <= work.padded_dim; element += kVectors * kLanes) {
    AddValues<kRows, kVectors>(work, first, count, element, values, state);
  }
  for (; element < work.task.head_dim; element += kLanes) {
    AddValues<kRows, 1>(work, first, count, element, values, state);
  }
}

template <int kRows, typename Keys>
BATON_INLINE void ScoreUpTo(const Work& work, int32_t first, int32_t rows, const Keys& keys) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return ScoreRows<kRows>(work, first, keys);
    ScoreUpTo<kRows - 1>(work, first, rows, keys);
  }
}

template <int kRows, typename Values>
BATON_INLINE void ValuesUpTo(const Work& work, int32_t first, int32_t rows, int32_t count,
                             const Values& values, const State& state) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return ValueRows<kRows>(work, first, count, values, state);
    ValuesUpTo<kRows - 1>(work, first, rows, count, values, state);
  }
}

// All of a few query vectors at once; of many, those that take the widest steps.
BATON_INLINE int32_t RowsAtOnce(int32_t rows) { return rows <= kMostRows ? kMostRows : kWideRows; }

// The positions of a tile that a query vector sees.
BATON_INLINE int32_t SeenIn(const Work& work, int32_t tile_begin, int32_t vector) {
  if (tile_begin + kTilePositions <= work.task.first_position) return kTilePositions;
  return Min(kTilePositions, work.PositionOf(vector) - tile_begin + 1);
}

// Adds the tile's values for the query vectors [begin, end): as many at once as see equally many
// positions.
template <typename Values>
void AddTileValues(const Work& work, int32_t tile_begin, int32_t begin, int32_t end,
                   const Values& values, const State& state) {
  const int32_t most = RowsAtOnce(end - begin);
  for (int32_t i = begin; i < end;) {
    const int32_t count = SeenIn(work, tile_begin, i);
    int32_t rows = 1;
    while (rows < most && i + rows < end && SeenIn(work, tile_begin, i + rows) == count) ++rows;
    ValuesUpTo<kMostRows>(work, i, rows, count, values, state);
    i += rows;
  }
}

// Scores the tile for the query vectors [begin, end).
template <typename Keys>
void ScoreTile(const Work& work, int32_t begin, int32_t end, const Keys& keys) {
  const int32_t most = RowsAtOnce(end - begin);
  for (int32_t i = begin; i < end; i += most) {
    ScoreUpTo<kMostRows>(work, i, Min(most, end - i), keys);
  }
}

// `next` is fetched ahead.
template <KvDType kDType>
void AttendTile(const Work& work, const Tile& tile, const Tile& next, const State& state) {
  using Format = KvFormat<kDType>;
  const int32_t begin = work.FirstSeeing(tile.begin);
  const int32_t head_dim = work.task.head_dim;
  if (work.in_place) {
    ScoreTile(work, begin, work.vectors,
              KeysInPlace<kDType>{tile, next, KeyStride<kDType>(work.task), head_dim});
  } else {
    LoadKeys<kDType>(work, tile, next);
    ScoreTile(work, begin, work.vectors, LoadedKeys{work.keys, head_dim});
  }
  Scales scales;
  if constexpr (Format::kLargest > 0) {
    PrefetchScales<kDType>(work.task, next);
    LoadScales<kDType>(work.task, tile, work.task.key_offset, scales.keys);
    LoadScales<kDType>(work.task, tile, work.task.value_offset, scales.values);
  }
  for (int32_t i = begin; i < work.vectors; ++i) {
    SoftmaxRow<false>(work, i, SeenIn(work, tile.begin, i),
                      Format::kLargest > 0 ? &scales : nullptr, state);
  }
  if (work.in_place) {
    AddTileValues(work, tile.begin, begin, work.vectors, ValuesInPlace<kDType>{tile, next}, state);
  } else {
    LoadValues<kDType>(work, tile, next);
    AddTileValues(work, tile.begin, begin, work.vectors, LoadedValues{work.values, work.padded_dim},
                  state);
  }
}

#if defined(__AVX512BF16__)

// Always in place; the first query vectors fetch the next tile for all.
template <bool kHalves>
void AttendPairs(const Work& work, const Tile& tile, const Tile& next, const State& state) {
  const AttentionTask& task = work.task;
  const int32_t begin = work.FirstSeeing(tile.begin);
  const int32_t fetched = Min(begin + kMostRows, work.vectors);
  const int64_t stride = KeyStride<KvDType::kBF16>(task);
  const int32_t steps = (task.head_dim + 1) / 2;
  ScoreTile(work, begin, fetched, PairKeys<kHalves, true>{tile, next, stride, steps});
  ScoreTile(work, fetched, work.vectors, PairKeys<kHalves, false>{tile, next, stride, steps});
  for (int32_t i = begin; i < work.vectors; ++i) {
    SoftmaxRow<true>(work, i, SeenIn(work, tile.begin, i), nullptr, state);
  }
  AddTileValues(work, tile.begin, begin, fetched, PairValues<true>{tile, next, task.head_dim},
                state);
  AddTileValues(work, tile.begin, fetched, work.vectors,
                PairValues<false>{tile, next, task.head_dim}, state);
}

template <>
void AttendTile<KvDType::kBF16>(const Work& work, const Tile& tile, const Tile& next,
                                const State& state) {
  if (work.task.block_tokens < kLanes) return AttendPairs<true>(work, tile, next, state);
  AttendPairs<false>(work, tile, next, state);
}

#endif

// ---- Segments ---------------------------------------------------------------------------------

int32_t SegmentsOf(const Work& work) { return work.last_position() / kSegmentPositions + 1; }

// A segment of a task, or none (null).
struct SegmentRef {
  const AttentionTask* task;
  int32_t segment;
};

// `after` is fetched ahead at the end.
template <KvDType kDType>
void AttendSegmentOf(const Work& work, int32_t segment, const SegmentRef& after,
                     const State& state) {
  const AttentionTask& task = work.task;
  const int32_t segment_begin = segment * kSegmentPositions;
  for (int32_t i = work.FirstSeeing(segment_begin); i < work.vectors; ++i) {
    float* output = state.outputs + int64_t{i} * work.padded_dim;
    for (int32_t d = 0; d < work.padded_dim; d += kLanes) Store(output + d, Zero());
    Store(state.sums + i * kMaxLanes, Zero());
    state.maxima[i] = -__builtin_inff();
  }
  const int32_t end = Min(segment_begin + kSegmentPositions, work.last_position() + 1);
  Tile tiles[2];
  FindTile<kDType>(task, segment_begin, tiles[0]);
  int current = 0;
  for (int32_t t = segment_begin; t < end; t += kTilePositions, current ^= 1) {
    Tile& next = tiles[current ^ 1];
    if (t + kTilePositions < end) {
      FindTile<kDType>(task, t + kTilePositions, next);
    } else if (after.task != nullptr) {
      FindTile<kDType>(*after.task, after.segment * kSegmentPositions, next);
    } else {
      next = tiles[current];
    }
    AttendTile<kDType>(work, tiles[current], next, state);
  }
}

void AttendSegmentTo(const Work& work, int32_t segment, const SegmentRef& after,
                     const State& state) {
  switch (work.task.dtype) {
    case KvDType::kF32:
      return AttendSegmentOf<KvDType::kF32>(work, segment, after, state);
    case KvDType::kF16:
      return AttendSegmentOf<KvDType::kF16>(work, segment, after, state);
    case KvDType::kBF16:
      return AttendSegmentOf<KvDType::kBF16>(work, segment, after, state);
    case KvDType::kInt8:
      return AttendSegmentOf<KvDType::kInt8>(work, segment, after, state);
    case KvDType::kFp8:
      return AttendSegmentOf<KvDType::kFp8>(work, segment, after, state);
  }
}

// total = total and part together, for the query vectors that see any of `segment`.
void Merge(const Work& work, int32_t segment, const State& part, const State& total) {
  for (int32_t i = work.FirstSeeing(segment * kSegmentPositions); i < work.vectors; ++i) {
    const float maximum = part.maxima[i] > total.maxima[i] ? part.maxima[i] : total.maxima[i];
    const Floats keep = Exp2(Set1(total.maxima[i] - maximum));
    const Floats join = Exp2(Set1(part.maxima[i] - maximum));
    total.maxima[i] = maximum;
    float* sums = total.sums + i * kMaxLanes;
    Store(sums, Fma(Load(part.sums + i * kMaxLanes), join, Mul(Load(sums), keep)));
    float* output = total.outputs + int64_t{i} * work.padded_dim;
    const float* joined = part.outputs + int64_t{i} * work.padded_dim;
    for (int32_t d = 0; d < work.padded_dim; d += kLanes) {
      Store(output + d, Fma(Load(joined + d), join, Mul(Load(output + d), keep)));
    }
  }
}

void WriteOutputs(const Work& work, const State& state) {
  const AttentionTask& task = work.task;
  for (int32_t i = 0; i < work.vectors; ++i) {
    const float factor = 1 / ReduceAdd(Load(state.sums + i * kMaxLanes));
    const float* output = state.outputs + int64_t{i} * work.padded_dim;
    float* out = task.out + i / task.heads * task.row_stride + i % task.heads * task.head_dim;
    for (int32_t d = 0; d < task.head_dim; ++d) out[d] = output[d] * factor;
  }
}

}  // namespace

void Attend(const AttentionTask& task) {
  const Work work = PrepareWork(task);
  const State total = StateAt(task.scratch, work.vectors, work.padded_dim);
  const State part = StateAt(task.scratch + SoftmaxStateFloats(kMaxQueryVectors, work.padded_dim),
                             work.vectors, work.padded_dim);
  const int32_t segments = SegmentsOf(work);
  for (int32_t segment = 0; segment < segments; ++segment) {
    const bool is_last = segment + 1 == segments;
    const SegmentRef after =
        is_last ? SegmentRef{task.next, task.next_segment} : SegmentRef{&task, segment + 1};
    AttendSegmentTo(work, segment, after, segment == 0 ? total : part);
    if (segment > 0) Merge(work, segment, part, total);
  }
  WriteOutputs(work, total);
}

void AttendSegment(const AttentionTask& task, int32_t segment, float* state) {
  const Work work = PrepareWork(task);
  AttendSegmentTo(work, segment, {task.next, task.next_segment},
                  StateAt(state, work.vectors, work.padded_dim));
}

void MergeSegments(const AttentionTask& task, float* states, int32_t segments) {
  const Work work = PrepareWork(task);
  const int64_t state_floats = SoftmaxStateFloats(work.vectors, work.padded_dim);
  const State total = StateAt(states, work.vectors, work.padded_dim);
  for (int32_t segment = 1; segment < segments; ++segment) {
    Merge(work, segment, StateAt(states + segment * state_floats, work.vectors, work.padded_dim),
          total);
  }
  WriteOutputs(work, total);
}

}  // namespace baton::kernels::BATON_ISA
