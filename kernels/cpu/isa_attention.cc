// Attention over a paged cache.
//
// A task's query vectors meet one tile of 32 positions after another. Many query vectors have a
// tile's keys and values made float once for all of them; a few, as in decode, read both where they
// lie. For each query vector the arithmetic depends only on its own position: tiles and segments
// lie at fixed absolute positions, and each sum has one order. Positions that a query vector may
// not see are masked by selection, and never multiplied, so what lies there (NaN, or a later
// token's value) has no effect.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_simd.h"

namespace baton::kernels::BATON_ISA {
namespace {

// Query vectors that are computed together, and vectors of positions (scores) or of elements
// (values) for each: as many sums as there are registers. Up to kWideValueRows query vectors take
// kValueVectors of elements at once, more of them half.
#if defined(__AVX512F__)
constexpr int kScoreRows = 8;
constexpr int kWideValueRows = 6;
constexpr int kValueRows = 8;
constexpr int kValueVectors = 4;
#elif defined(__AVX2__)
constexpr int kScoreRows = 5;
constexpr int kWideValueRows = 5;
constexpr int kValueRows = 5;
constexpr int kValueVectors = 2;
#else
constexpr int kScoreRows = 4;
constexpr int kWideValueRows = 4;
constexpr int kValueRows = 4;
constexpr int kValueVectors = 2;
#endif
constexpr int kScoreVectors = 2;
constexpr int kInPlaceVectors = 8;
constexpr int kSmallestBlockTokens = 8;
constexpr int kTileVectors = kTilePositions / kLanes;
constexpr float kLog2E = 1.44269504088896341f;

BATON_INLINE int32_t Min(int32_t a, int32_t b) { return a < b ? a : b; }

// The running softmax of all query vectors of a task.
struct State {
  float* outputs;  // [vectors][padded_dim]
  float* sums;     // [vectors][kMaxLanes], of which kLanes are used
  float* maxima;   // [vectors]
};

struct Work {
  const AttentionTask& task;
  int32_t vectors;     // query vector i is row i / heads, head i % heads
  int32_t padded_dim;  // a multiple of kLanes
  float* queries;      // [vectors][padded_dim], scaled for a softmax of base 2
  float* weights;      // [vectors][kTilePositions]: scores, then weights, of one tile
  float* keys;         // [head_dim][kTilePositions], unless in_place
  float* values;       // [kTilePositions][padded_dim], unless in_place
  bool in_place;       // keys and values are read where they lie in the cache

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
  const float scale = task.scale * kLog2E;
  for (int32_t i = 0; i < vectors; ++i) {
    const float* from =
        task.q + i / task.heads * task.row_stride + i % task.heads * int64_t{task.head_dim};
    for (int32_t d = 0; d < task.head_dim; ++d) queries[i * padded + d] = from[d] * scale;
  }
  const bool in_place =
      vectors <= kInPlaceVectors && task.head_dim == padded && task.block_tokens >= kLanes;
  return {task, vectors, padded, queries, weights, keys, keys + kTilePositions * padded, in_place};
}

// ---- One tile ---------------------------------------------------------------------------------

// Where a tile's keys and values lie in the cache.
struct Tile {
  int32_t begin;
  int32_t count;  // positions that any query vector sees
  // Of the first element, for each vector of positions: its two halves.
  const uint8_t* keys[kTileVectors][2];
  const uint8_t* values[kTilePositions];
  const uint8_t* blocks[kTilePositions / kSmallestBlockTokens];
};

// Blocks after the one of the last seen position repeat the first, so that whole tiles can be read.
template <KvDType kDType>
void FindTile(const AttentionTask& task, int32_t begin, Tile& tile) {
  constexpr int kBytes = KvFormat<kDType>::kBytes;
  tile.begin = begin;
  tile.count = Min(kTilePositions, task.first_position + task.rows - begin);
  const int64_t row_bytes = int64_t{task.head_dim} * kBytes;
  for (int32_t t = 0, i = 0; t < kTilePositions; t += task.block_tokens, ++i) {
    tile.blocks[i] =
        t < tile.count
            ? task.slab + task.block_table[(begin + t) / task.block_tokens] * task.block_bytes
            : tile.blocks[0];
    const uint8_t* values = tile.blocks[i] + task.value_offset;
    for (int32_t j = 0; j < task.block_tokens; ++j) tile.values[t + j] = values + j * row_bytes;
  }
  for (int32_t half = 0; half < 2 * kTileVectors; ++half) {
    const int32_t t = half * (kLanes / 2);
    tile.keys[half / 2][half % 2] =
        tile.blocks[t / task.block_tokens] + task.key_offset + t % task.block_tokens * kBytes;
  }
}

// A tile's scales by position, from the elements' end on; those of positions that nobody sees are
// not defined.
template <KvDType kDType>
void LoadScales(const AttentionTask& task, const Tile& tile, int64_t offset, float* scales) {
  offset += int64_t{task.block_tokens} * task.head_dim * KvFormat<kDType>::kBytes;
  for (int32_t t = 0, i = 0; t < kTilePositions; t += task.block_tokens, ++i) {
    std::memcpy(scales + t, tile.blocks[i] + offset, task.block_tokens * sizeof(float));
  }
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    Store(scales + v * kLanes, Mul(Load(scales + v * kLanes), Set1(KvFormat<kDType>::kUnit)));
  }
}

BATON_INLINE void Prefetch(const void* at) {
#if defined(__AVX2__)
  _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1);
#else
  static_cast<void>(at);
#endif
}

// The keys of positions [vector * kLanes, ...) of the tile, one element of each.
struct LoadedKeys {
  const float* keys;
  __attribute__((always_inline)) Floats Get(int32_t element, int vector) const {
    return Load(keys + element * kTilePositions + vector * kLanes);
  }
};
template <KvDType kDType>
struct KeysInPlace {
  const Tile& tile;
  const Tile& next;
  int64_t stride;
  __attribute__((always_inline)) Floats Get(int32_t element, int vector) const {
    Prefetch(next.keys[vector][0] + element * stride);
    return KvFormat<kDType>::Load(tile.keys[vector][0] + element * stride);
  }
};

// Elements [element, element + kLanes) of the value at position t of the tile.
struct LoadedValues {
  const float* values;
  int32_t padded_dim;
  __attribute__((always_inline)) Floats Get(int32_t t, int32_t element) const {
    return Load(values + t * padded_dim + element);
  }
};
template <KvDType kDType>
struct ValuesInPlace {
  const Tile& tile;
  const Tile& next;
  __attribute__((always_inline)) Floats Get(int32_t t, int32_t element) const {
    Prefetch(next.values[t] + element * KvFormat<kDType>::kBytes);
    return KvFormat<kDType>::Load(tile.values[t] + element * KvFormat<kDType>::kBytes);
  }
};

template <KvDType kDType>
void LoadKeys(const Work& work, const Tile& tile, const Tile& next) {
  using Format = KvFormat<kDType>;
  const int64_t stride = int64_t{work.task.block_tokens} * Format::kBytes;
  const bool paired = work.task.block_tokens < kLanes;
  for (int32_t d = 0; d < work.task.head_dim; ++d) {
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const uint8_t* low = tile.keys[v][0] + d * stride;
      Prefetch(next.keys[v][0] + d * stride);
      Store(work.keys + d * kTilePositions + v * kLanes,
            paired ? Format::LoadPair(low, tile.keys[v][1] + d * stride) : Format::Load(low));
    }
  }
}

// Zeros from head_dim up to padded_dim.
template <KvDType kDType>
void LoadValues(const Work& work, const Tile& tile, const Tile& next) {
  using Format = KvFormat<kDType>;
  const int32_t head_dim = work.task.head_dim;
  for (int32_t t = 0; t < tile.count; ++t) {
    float* to = work.values + t * work.padded_dim;
    int32_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) {
      Prefetch(next.values[t] + d * Format::kBytes);
      Store(to + d, Format::Load(tile.values[t] + d * Format::kBytes));
    }
    for (; d < work.padded_dim; d += kLanes) {
      alignas(64) uint8_t rest[4 * kLanes] = {};
      if (d < head_dim) {
        std::memcpy(rest, tile.values[t] + d * Format::kBytes, (head_dim - d) * Format::kBytes);
      }
      Store(to + d, Format::Load(rest));
    }
  }
}

// Scores of kRows query vectors with all positions of the tile.
template <int kRows, typename Keys>
BATON_INLINE void ScoreRows(const Work& work, int32_t first, const Keys& keys) {
  const float* queries = work.queries + first * work.padded_dim;
  BATON_UNROLL for (int vector = 0; vector < kTileVectors; vector += kScoreVectors) {
    Floats scores[kRows][kScoreVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) scores[r][v] = Zero();
    }
    for (int32_t d = 0; d < work.task.head_dim; ++d) {
      Floats key[kScoreVectors];
      BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) key[v] = keys.Get(d, vector + v);
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        const Floats query = Set1(queries[r * work.padded_dim + d]);
        BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) {
          scores[r][v] = Fma(query, key[v], scores[r][v]);
        }
      }
    }
    float* out = work.weights + first * kTilePositions + vector * kLanes;
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) {
        Store(out + r * kTilePositions + v * kLanes, scores[r][v]);
      }
    }
  }
}

// A tile's scales by position, for formats that have them.
struct Scales {
  alignas(64) float keys[kTilePositions];
  alignas(64) float values[kTilePositions];
};

// Turns the scores of one query vector's first `count` positions into weights, the others into 0,
// and rescales what it has gathered when its maximum grows. With scales, scores and weights are
// multiplied by them (null: without).
BATON_INLINE void SoftmaxRow(const Work& work, int32_t vector, int32_t count, const Scales* scales,
                             const State& state) {
  const Floats infinity = Set1(-__builtin_inff());
  float* weights = work.weights + vector * kTilePositions;
  Floats scores[kTileVectors];
  Floats largest = infinity;
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    Floats score = Load(weights + v * kLanes);
    if (scales != nullptr) score = Mul(score, Load(scales->keys + v * kLanes));
    scores[v] = KeepFirst(score, count - v * kLanes, infinity);
    largest = Max(largest, scores[v]);
  }
  const float tile_maximum = ReduceMax(largest);
  const float old_maximum = state.maxima[vector];
  float* sums = state.sums + vector * kMaxLanes;
  Floats sum = Load(sums);
  if (tile_maximum > old_maximum) {
    // Without this branch the factor would be exactly 1.
    state.maxima[vector] = tile_maximum;
    const Floats factor = Exp2(Set1(old_maximum - tile_maximum));
    sum = Mul(sum, factor);
    float* output = state.outputs + int64_t{vector} * work.padded_dim;
    for (int32_t d = 0; d < work.padded_dim; d += kLanes) {
      Store(output + d, Mul(Load(output + d), factor));
    }
  }
  const Floats maximum = Set1(state.maxima[vector]);
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    const Floats weight = Exp2(Sub(scores[v], maximum));
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
  float* outputs = state.outputs + int64_t{first} * work.padded_dim + element;
  const float* weights = work.weights + first * kTilePositions;
  Floats sums[kRows][kVectors];
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Load(outputs + r * work.padded_dim + v * kLanes);
    }
  }
  for (int32_t t = 0; t < count; ++t) {
    Floats value[kVectors];
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) value[v] = values.Get(t, element + v * kLanes);
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      const Floats weight = Set1(weights[r * kTilePositions + t]);
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Fma(weight, value[v], sums[r][v]);
      }
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
  constexpr int kVectors = kRows <= kWideValueRows ? kValueVectors : kValueVectors / 2;
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

// The positions of a tile that a query vector sees.
BATON_INLINE int32_t SeenIn(const Work& work, int32_t tile_begin, int32_t vector) {
  return Min(kTilePositions, work.PositionOf(vector) - tile_begin + 1);
}

// Adds the tile's values for the query vectors from `begin` on: as many at once as see equally many
// positions.
template <typename Values>
void AddTileValues(const Work& work, int32_t tile_begin, int32_t begin, const Values& values,
                   const State& state) {
  // All of a few at once; of many, those that take the widest steps.
  const int32_t most = work.vectors - begin <= kValueRows ? kValueRows : kWideValueRows;
  for (int32_t i = begin; i < work.vectors;) {
    const int32_t count = SeenIn(work, tile_begin, i);
    int32_t rows = 1;
    while (rows < most && i + rows < work.vectors && SeenIn(work, tile_begin, i + rows) == count) {
      ++rows;
    }
    ValuesUpTo<kValueRows>(work, i, rows, count, values, state);
    i += rows;
  }
}

// Scores the tile for the query vectors from `begin` on.
template <typename Keys>
void ScoreTile(const Work& work, int32_t begin, const Keys& keys) {
  for (int32_t i = begin; i < work.vectors; i += kScoreRows) {
    ScoreUpTo<kScoreRows>(work, i, Min(kScoreRows, work.vectors - i), keys);
  }
}

// `next` is fetched ahead.
template <KvDType kDType>
void AttendTile(const Work& work, const Tile& tile, const Tile& next, const State& state) {
  using Format = KvFormat<kDType>;
  const int32_t begin = work.FirstSeeing(tile.begin);
  if (work.in_place) {
    const int64_t stride = int64_t{work.task.block_tokens} * Format::kBytes;
    ScoreTile(work, begin, KeysInPlace<kDType>{tile, next, stride});
  } else {
    LoadKeys<kDType>(work, tile, next);
    ScoreTile(work, begin, LoadedKeys{work.keys});
  }
  Scales scales;
  if constexpr (Format::kLargest > 0) {
    LoadScales<kDType>(work.task, tile, work.task.key_offset, scales.keys);
    LoadScales<kDType>(work.task, tile, work.task.value_offset, scales.values);
  }
  for (int32_t i = begin; i < work.vectors; ++i) {
    SoftmaxRow(work, i, SeenIn(work, tile.begin, i), Format::kLargest > 0 ? &scales : nullptr,
               state);
  }
  if (work.in_place) {
    AddTileValues(work, tile.begin, begin, ValuesInPlace<kDType>{tile, next}, state);
  } else {
    LoadValues<kDType>(work, tile, next);
    AddTileValues(work, tile.begin, begin, LoadedValues{work.values, work.padded_dim}, state);
  }
}

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
