// Attention over a paged cache.
//
// A task's query vectors meet one tile of 32 positions after another. A tile's keys and values are
// made float once for all query vectors of the task; a few query vectors, as in decode, read the
// values where they lie. For each query vector the arithmetic depends
// only on its own position: tiles and segments lie at fixed absolute positions, and each sum has
// one order. Positions that a query vector may not see are masked by selection, and never
// multiplied, so what lies there (NaN, or a later token's value) has no effect.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/simd.h"

namespace baton::kernels::BATON_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kScoreRows = 8;
constexpr int kValueRows = 6;
constexpr int kValueVectors = 4;
#elif defined(__AVX2__)
constexpr int kScoreRows = 5;
constexpr int kValueRows = 5;
constexpr int kValueVectors = 2;
#else
constexpr int kScoreRows = 4;
constexpr int kValueRows = 4;
constexpr int kValueVectors = 2;
#endif
constexpr int kScoreVectors = 2;
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
  float* key_rows;     // [kTilePositions][padded_dim]
  float* keys;         // [padded_dim][kTilePositions]
  float* values;       // [kTilePositions][padded_dim], unless values_in_place
  int64_t row_bytes;   // of a position's key or value in the cache
  bool values_in_place;

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
  float* key_rows = weights + kMaxQueryVectors * kTilePositions;
  float* keys = key_rows + kTilePositions * padded;
  const int32_t vectors = task.rows * task.heads;
  const float scale = task.scale * kLog2E;
  for (int32_t i = 0; i < vectors; ++i) {
    const float* from =
        task.q + i / task.heads * task.row_stride + i % task.heads * int64_t{task.head_dim};
    for (int32_t d = 0; d < task.head_dim; ++d) queries[i * padded + d] = from[d] * scale;
  }
  return {task,
          vectors,
          padded,
          queries,
          weights,
          key_rows,
          keys,
          keys + kTilePositions * padded,
          int64_t{task.head_dim} * (task.half ? 2 : 4),
          vectors <= kValueRows && task.head_dim == padded};
}

// ---- One tile ---------------------------------------------------------------------------------

BATON_INLINE Floats LoadElements(const uint8_t* from, bool half, int64_t index) {
  return half ? LoadHalves(from + 2 * index) : Load(reinterpret_cast<const float*>(from) + index);
}

// head_dim elements of a cache row as floats, zeros up to padded_dim.
void LoadCacheRow(const uint8_t* from, bool half, int32_t head_dim, int32_t padded_dim, float* to) {
  int32_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) Store(to + d, LoadElements(from, half, d));
  for (; d < padded_dim; d += kLanes) {
    alignas(64) uint8_t rest[4 * kLanes] = {};
    const int element_bytes = half ? 2 : 4;
    if (d < head_dim) std::memcpy(rest, from + d * element_bytes, (head_dim - d) * element_bytes);
    Store(to + d, LoadElements(rest, half, 0));
  }
}

// Where the keys and values of a tile's positions lie in the cache.
struct TileRows {
  const uint8_t* keys[kTilePositions];
  const uint8_t* values[kTilePositions];
};

// The first `count` positions; the others repeat the first, so that whole tiles can be read.
void FindTileRows(const Work& work, int32_t tile_begin, int32_t count, TileRows& rows) {
  const AttentionTask& task = work.task;
  int32_t t = 0;
  while (t < count) {
    const int32_t position = tile_begin + t;
    const uint8_t* block =
        task.slab + task.block_table[position / task.block_tokens] * task.block_bytes;
    for (int32_t i = 0; i < task.block_tokens && t < count; ++i, ++t) {
      rows.keys[t] = block + task.key_offset + i * work.row_bytes;
      rows.values[t] = block + task.value_offset + i * work.row_bytes;
    }
  }
  for (; t < kTilePositions; ++t) {
    rows.keys[t] = rows.keys[0];
    rows.values[t] = rows.values[0];
  }
}

// Tiles ahead that a task with few query vectors fetches into the second-level cache: its
// arithmetic alone is too short to hide the way to memory.
constexpr int32_t kTilesAhead = 2;

// Inlined, because GCC takes a function that only prefetches for one without effect.
BATON_INLINE void PrefetchRows(const uint8_t* const* rows, int32_t count, int64_t row_bytes) {
#if defined(__AVX2__)
  for (int32_t t = 0; t < count; ++t) {
    for (int64_t i = 0; i < row_bytes; i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(rows[t] + i), _MM_HINT_T1);
    }
  }
#else
  static_cast<void>(rows);
  static_cast<void>(count);
  static_cast<void>(row_bytes);
#endif
}

// Keys first, then values: each lie in runs.
BATON_INLINE void PrefetchTile(const Work& work, int32_t tile_begin) {
  const int32_t count = Min(kTilePositions, work.last_position() + 1 - tile_begin);
  if (!work.values_in_place || count <= 0) return;
  TileRows rows;
  FindTileRows(work, tile_begin, count, rows);
  PrefetchRows(rows.keys, count, work.row_bytes);
  PrefetchRows(rows.values, count, work.row_bytes);
}

// Makes the keys of the tile's first `count` positions float, transposed. What `keys` holds for the
// other positions is not defined.
void LoadKeys(const Work& work, const TileRows& rows, int32_t count) {
  const AttentionTask& task = work.task;
#if defined(__AVX512F__)
  if (task.half && task.head_dim % 32 == 0) {
    for (int32_t t = 0; t < count; t += kLanes) {
      for (int32_t d = 0; d < task.head_dim; d += 32) {
        TransposeHalves(rows.keys + t, 2 * d, work.keys + d * kTilePositions + t, kTilePositions);
      }
    }
    return;
  }
#endif
  for (int32_t t = 0; t < count; ++t) {
    LoadCacheRow(rows.keys[t], task.half, task.head_dim, work.padded_dim,
                 work.key_rows + t * work.padded_dim);
  }
  for (int32_t t = 0; t < count; t += kLanes) {
    for (int32_t d = 0; d < work.padded_dim; d += kLanes) {
      Transpose(work.key_rows + t * work.padded_dim + d, work.padded_dim,
                work.keys + d * kTilePositions + t, kTilePositions);
    }
  }
}

void LoadValues(const Work& work, const TileRows& rows, int32_t count) {
  for (int32_t t = 0; t < count; ++t) {
    LoadCacheRow(rows.values[t], work.task.half, work.task.head_dim, work.padded_dim,
                 work.values + t * work.padded_dim);
  }
}

// Scores of kRows query vectors with all positions of the tile.
template <int kRows>
BATON_INLINE void ScoreRows(const Work& work, int32_t first) {
  const float* queries = work.queries + first * work.padded_dim;
  BATON_UNROLL for (int vector = 0; vector < kTileVectors; vector += kScoreVectors) {
    Floats scores[kRows][kScoreVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) scores[r][v] = Zero();
    }
    const float* keys = work.keys + vector * kLanes;
    for (int32_t d = 0; d < work.task.head_dim; ++d) {
      Floats key[kScoreVectors];
      BATON_UNROLL for (int v = 0; v < kScoreVectors; ++v) {
        key[v] = Load(keys + d * kTilePositions + v * kLanes);
      }
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

// Turns the scores of one query vector's first `count` positions into weights, the others into 0,
// and rescales what it has gathered when its maximum grows.
void SoftmaxRow(const Work& work, int32_t vector, int32_t count, const State& state) {
  const Floats infinity = Set1(-__builtin_inff());
  float* weights = work.weights + vector * kTilePositions;
  Floats scores[kTileVectors];
  Floats largest = infinity;
  BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    scores[v] = KeepFirst(Load(weights + v * kLanes), count - v * kLanes, infinity);
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
    Store(weights + v * kLanes, weight);
    sum = Add(sum, weight);
  }
  Store(sums, sum);
}

// Elements [element, element + kLanes) of the value at position t of the tile.
struct LoadedValues {
  const float* values;
  int32_t padded_dim;
  __attribute__((always_inline)) Floats Get(int32_t t, int32_t element) const {
    return Load(values + t * padded_dim + element);
  }
};
template <bool kHalf>
struct ValuesInPlace {
  const uint8_t* const* rows;
  __attribute__((always_inline)) Floats Get(int32_t t, int32_t element) const {
    return LoadElements(rows[t], kHalf, element);
  }
};

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
  int32_t element = 0;
  for (; element + kValueVectors * kLanes <= work.padded_dim; element += kValueVectors * kLanes) {
    AddValues<kRows, kValueVectors>(work, first, count, element, values, state);
  }
  for (; element < work.task.head_dim; element += kLanes) {
    AddValues<kRows, 1>(work, first, count, element, values, state);
  }
}

template <int kRows>
BATON_INLINE void ScoreUpTo(const Work& work, int32_t first, int32_t rows) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return ScoreRows<kRows>(work, first);
    ScoreUpTo<kRows - 1>(work, first, rows);
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
  for (int32_t i = begin; i < work.vectors;) {
    const int32_t count = SeenIn(work, tile_begin, i);
    int32_t rows = 1;
    while (rows < kValueRows && i + rows < work.vectors &&
           SeenIn(work, tile_begin, i + rows) == count) {
      ++rows;
    }
    ValuesUpTo<kValueRows>(work, i, rows, count, values, state);
    i += rows;
  }
}

void AttendTile(const Work& work, int32_t tile_begin, const State& state) {
  const int32_t count = Min(kTilePositions, work.last_position() + 1 - tile_begin);
  TileRows rows;
  FindTileRows(work, tile_begin, count, rows);
  LoadKeys(work, rows, count);
  PrefetchTile(work, tile_begin + kTilesAhead * kTilePositions);
  const int32_t begin = work.FirstSeeing(tile_begin);
  for (int32_t i = begin; i < work.vectors; i += kScoreRows) {
    ScoreUpTo<kScoreRows>(work, i, Min(kScoreRows, work.vectors - i));
  }
  for (int32_t i = begin; i < work.vectors; ++i) {
    SoftmaxRow(work, i, SeenIn(work, tile_begin, i), state);
  }
  if (!work.values_in_place) {
    LoadValues(work, rows, count);
    AddTileValues(work, tile_begin, begin, LoadedValues{work.values, work.padded_dim}, state);
  } else if (work.task.half) {
    AddTileValues(work, tile_begin, begin, ValuesInPlace<true>{rows.values}, state);
  } else {
    AddTileValues(work, tile_begin, begin, ValuesInPlace<false>{rows.values}, state);
  }
}

// ---- Segments ---------------------------------------------------------------------------------

int32_t SegmentsOf(const Work& work) { return work.last_position() / kSegmentPositions + 1; }

void AttendSegmentTo(const Work& work, int32_t segment, const State& state) {
  const int32_t segment_begin = segment * kSegmentPositions;
  for (int32_t i = work.FirstSeeing(segment_begin); i < work.vectors; ++i) {
    float* output = state.outputs + int64_t{i} * work.padded_dim;
    for (int32_t d = 0; d < work.padded_dim; d += kLanes) Store(output + d, Zero());
    Store(state.sums + i * kMaxLanes, Zero());
    state.maxima[i] = -__builtin_inff();
  }
  for (int32_t i = 0; i < kTilesAhead; ++i) PrefetchTile(work, segment_begin + i * kTilePositions);
  const int32_t end = Min(segment_begin + kSegmentPositions, work.last_position() + 1);
  for (int32_t t = segment_begin; t < end; t += kTilePositions) AttendTile(work, t, state);
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
  AttendSegmentTo(work, 0, total);
  for (int32_t segment = 1; segment < SegmentsOf(work); ++segment) {
    AttendSegmentTo(work, segment, part);
    Merge(work, segment, part, total);
  }
  WriteOutputs(work, total);
}

void AttendSegment(const AttentionTask& task, int32_t segment, float* state) {
  const Work work = PrepareWork(task);
  AttendSegmentTo(work, segment, StateAt(state, work.vectors, work.padded_dim));
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
