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
// of such pairs, with queries and weights rounded to BF16, for one query vector as for many; with
// AMX, those of many query vectors are summed up in tile registers.

#include "kernels/cpu/attention_operands.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/isa_functions.h"

namespace baton::kernels::BATON_ISA {

namespace {

// Scores of kRows query vectors with all positions of the tile.
template <int kRows, typename Keys>
BATON_INLINE void ScoreRows(const Work& work, int32_t first, const Keys& keys) {
  using Math = typename Keys::Math;
  const float* queries = work.queries + first * work.padded_dim;
  constexpr int kVectors = kVectorsFor<Math, kRows>;
  BATON_UNROLL for (int vector = 0; vector < kTileVectors; vector += kVectors) {
    float* out = work.weights + first * kTilePositions + vector * kLanes;
    for (int32_t begin = 0; begin < keys.steps; begin += Math::kGroupSteps) {
      typename Math::Sum scores[kRows][kVectors];
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        BATON_UNROLL for (int v = 0; v < kVectors; ++v) scores[r][v] = Math::Begin(Zero());
      }
      const int32_t end = Min(begin + Math::kGroupSteps, keys.steps);
      for (int32_t step = begin; step < end; ++step) {
        typename Math::Vector key[kVectors];
        BATON_UNROLL for (int v = 0; v < kVectors; ++v) key[v] = keys.Get(step, vector + v);
        MultiplyStep<Math>(key, queries + step, work.padded_dim, scores);
      }
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
          float* score = out + r * kTilePositions + v * kLanes;
          Store(score, Math::End(begin == 0 ? Zero() : Load(score), scores[r][v]));
        }
      }
    }
  }
}

// outputs += weights * values of the first `count` positions, for kRows query vectors and kVectors
// vectors of the head's elements from `element` on.
template <int kRows, int kVectors, typename Values>
BATON_INLINE void AddValues(const Work& work, int32_t first, int32_t count, int32_t element,
                            const Values& values, const State& state) {
  using Math = typename Values::Math;
  float* outputs = state.outputs + int64_t{first} * work.padded_dim + element;
  const float* weights = work.weights + first * kTilePositions;
  const int32_t steps = Values::Steps(count);
  const int32_t all_steps = steps + (Values::HasRest(count) ? 1 : 0);
  for (int32_t begin = 0; begin < all_steps; begin += Math::kGroupSteps) {
    typename Math::Sum sums[kRows][kVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Math::Begin(Load(outputs + r * work.padded_dim + v * kLanes));
      }
    }
    typename Math::Vector value[kVectors];
    const int32_t end = Min(begin + Math::kGroupSteps, steps);
    for (int32_t step = begin; step < end; ++step) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        value[v] = values.Get(step, element + v * kLanes);
      }
      MultiplyStep<Math>(value, weights + step, kTilePositions, sums);
    }
    if constexpr (Math::kPairs) {
      if (Values::HasRest(count) && all_steps <= begin + Math::kGroupSteps) {
        BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
          value[v] = values.GetRest(steps, element + v * kLanes);
        }
        MultiplyStep<Math>(value, weights + steps, kTilePositions, sums);
      }
    }
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
        float* output = outputs + r * work.padded_dim + v * kLanes;
        Store(output, Math::End(Load(output), sums[r][v]));
      }
    }
  }
}

template <int kRows, typename Values>
BATON_INLINE void ValueRows(const Work& work, int32_t first, int32_t count, const Values& values,
                            const State& state) {
  constexpr int kVectors = kVectorsFor<typename Values::Math, kRows>;
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
template <typename Math, bool kHalves>
void AttendPairs(const Work& work, const Tile& tile, const Tile& next, const State& state) {
  const AttentionTask& task = work.task;
  const int32_t begin = work.FirstSeeing(tile.begin);
  const int32_t fetched = Min(begin + kMostRows, work.vectors);
  const int64_t stride = KeyStride<KvDType::kBF16>(task);
  const int32_t steps = (task.head_dim + 1) / 2;
  ScoreTile(work, begin, fetched, PairKeys<Math, kHalves, true>{tile, next, stride, steps});
  ScoreTile(work, fetched, work.vectors, PairKeys<Math, kHalves, false>{tile, next, stride, steps});
  for (int32_t i = begin; i < work.vectors; ++i) {
    SoftmaxRow<true>(work, i, SeenIn(work, tile.begin, i), nullptr, state);
  }
  AddTileValues(work, tile.begin, begin, fetched, PairValues<Math, true>{tile, next, task.head_dim},
                state);
  AddTileValues(work, tile.begin, fetched, work.vectors,
                PairValues<Math, false>{tile, next, task.head_dim}, state);
}

template <typename Math>
void AttendPairsOf(const Work& work, const Tile& tile, const Tile& next, const State& state) {
  if (work.task.block_tokens < kLanes) return AttendPairs<Math, true>(work, tile, next, state);
  AttendPairs<Math, false>(work, tile, next, state);
}

template <>
void AttendTile<KvDType::kBF16>(const Work& work, const Tile& tile, const Tile& next,
                                const State& state) {
#if defined(__AMX_BF16__)
  if (FitsTiles(work.task)) {
    if (AttendInTiles(work, tile, next, state)) return;
    return AttendPairsOf<ChainMath>(work, tile, next, state);
  }
#endif
  AttendPairsOf<PairMath>(work, tile, next, state);
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
