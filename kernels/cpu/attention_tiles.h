#pragma once

// Attention over a BF16 cache in the tile registers of AMX; see isa_attention.cc. ChainMath gives
// the same bits, so some query vectors may be computed this way and others that way.
//
// The cache's pairs are what a tile multiplies. Keys are read where they lie; values, whose 32
// positions may be in two blocks, are gathered first.

#if defined(__AMX_BF16__)

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/attention_operands.h"
#include "kernels/cpu/attention_softmax.h"

namespace baton::kernels::BATON_ISA {

// Of fewer query vectors, reading keys and values bounds the time, and vectors read faster.
constexpr int32_t kLeastTileVectors = 8;

BATON_INLINE bool FitsTiles(const AttentionTask& task) {
  return task.head_dim % kBf16TileInputs == 0;
}

BATON_INLINE bool HasNonFinite(Ints pairs) {
  const Ints exponents = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(pairs, exponents), exponents) != 0;
}

// work.values = the tile's values, [kTilePositions / 2][padded_dim] pairs, with zeros for positions
// that nobody sees. Returns whether those that only some query vectors see are finite: the others'
// weights for them are zero then, and so are the products.
static bool GatherValues(const Work& work, const Tile& tile, const Tile& next) {
  const int32_t seen_by_all = SeenIn(work, tile.begin, work.FirstSeeing(tile.begin));
  bool finite = true;
  for (int32_t t = 0; t < kTilePositions; t += 2) {
    float* to = work.values + t / 2 * work.padded_dim;
    for (int32_t d = 0; d < work.task.head_dim; d += kLanes) {
      const uint8_t* from = tile.values[t] + 4 * d;
      Prefetch(next.values[t] + 4 * d);
      Ints pairs = ZeroInts();
      if (t < tile.count)
        pairs = t + 1 < tile.count ? LoadInts(from) : FirstOfPairs(LoadInts(from));
      if (t + 1 >= seen_by_all && HasNonFinite(pairs)) finite = false;
      StoreInts(to + d, pairs);
    }
  }
  return finite;
}

BATON_INLINE void FetchKeys(const AttentionTask& task, const Tile& next) {
  const int64_t stride = KeyStride<KvDType::kBF16>(task);
  for (int32_t step = 0; step < task.head_dim / 2; ++step) {
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) Prefetch(next.keys[v][0] + step * stride);
  }
}

template <bool kSecondRows>
BATON_INLINE void ScoreInTiles(const Work& work, const Tile& tile, int32_t first) {
  const int64_t key_stride = KeyStride<KvDType::kBF16>(work.task);
  const int64_t query_stride = work.padded_dim * int64_t{sizeof(float)};
  constexpr int64_t kStride = kTilePositions * sizeof(float);
  const float* queries = work.queries + first * work.padded_dim;
  const float* second_queries = queries + kTileRows * work.padded_dim;
  float* scores = work.weights + first * kTilePositions;
  for (int v = 0; v < kTileVectors; v += 2, scores += 2 * kLanes) {
    _tile_zero(0);
    _tile_zero(1);
    if (kSecondRows) {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int32_t pair = 0; pair < work.task.head_dim / 2; pair += kBf16TileInputs / 2) {
      _tile_loadd(4, queries + pair, query_stride);
      _tile_loadd(6, tile.keys[v][0] + pair * key_stride, key_stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, tile.keys[v + 1][0] + pair * key_stride, key_stride);
      _tile_dpbf16ps(1, 4, 7);
      if (kSecondRows) {
        _tile_loadd(5, second_queries + pair, query_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, scores, kStride);
    _tile_stored(1, scores + kLanes, kStride);
    if (kSecondRows) {
      _tile_stored(2, scores + kTileRows * kTilePositions, kStride);
      _tile_stored(3, scores + kTileRows * kTilePositions + kLanes, kStride);
    }
  }
}

template <bool kSecondRows>
BATON_INLINE void AddValuesInTiles(const Work& work, int32_t first, const State& state) {
  const int64_t stride = work.padded_dim * int64_t{sizeof(float)};
  constexpr int64_t kWeightStride = kTilePositions * sizeof(float);
  const float* weights = work.weights + first * kTilePositions;
  const float* second_weights = weights + kTileRows * kTilePositions;
  for (int32_t d = 0; d < work.task.head_dim; d += 2 * kLanes) {
    float* outputs = state.outputs + int64_t{first} * work.padded_dim + d;
    float* second_outputs = outputs + kTileRows * work.padded_dim;
    _tile_loadd(0, outputs, stride);
    _tile_loadd(1, outputs + kLanes, stride);
    if (kSecondRows) {
      _tile_loadd(2, second_outputs, stride);
      _tile_loadd(3, second_outputs + kLanes, stride);
    }
    for (int32_t pair = 0; pair < kTilePositions / 2; pair += kBf16TileInputs / 2) {
      const float* values = work.values + pair * work.padded_dim + d;
      _tile_loadd(4, weights + pair, kWeightStride);
      _tile_loadd(6, values, stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, values + kLanes, stride);
      _tile_dpbf16ps(1, 4, 7);
      if (kSecondRows) {
        _tile_loadd(5, second_weights + pair, kWeightStride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, outputs, stride);
    _tile_stored(1, outputs + kLanes, stride);
    if (kSecondRows) {
      _tile_stored(2, second_outputs, stride);
      _tile_stored(3, second_outputs + kLanes, stride);
    }
  }
}

// The query vectors [first, first + rows), for which the tiles are configured.
template <bool kSecondRows>
BATON_INLINE void AttendRowsInTiles(const Work& work, const Tile& tile, int32_t first, int32_t rows,
                                    const State& state) {
  PublishToTiles();
  ScoreInTiles<kSecondRows>(work, tile, first);
  for (int32_t i = first; i < first + rows; ++i) {
    SoftmaxRow<true>(work, i, SeenIn(work, tile.begin, i), nullptr, state);
  }
  PublishToTiles();
  AddValuesInTiles<kSecondRows>(work, first, state);
}

// False, with nothing done, where the tile is one for ChainMath. `next` is fetched ahead.
static bool AttendInTiles(const Work& work, const Tile& tile, const Tile& next,
                          const State& state) {
  const int32_t begin = work.FirstSeeing(tile.begin);
  if (work.vectors - begin < kLeastTileVectors || work.task.block_tokens < kLanes) return false;
  if (!GatherValues(work, tile, next)) return false;
  FetchKeys(work.task, next);
  const int32_t tail = (work.vectors - begin) % kMaxTileRows;
  const int32_t tail_begin = work.vectors - tail;
  if (tail_begin > begin) {
    const TileScope tiles(kBf16Configs.of_rows[kMaxTileRows]);
    for (int32_t i = begin; i < tail_begin; i += kMaxTileRows) {
      AttendRowsInTiles<true>(work, tile, i, kMaxTileRows, state);
    }
  }
  if (tail > 0) {
    const TileScope tiles(kBf16Configs.of_rows[tail]);
    if (tail > kTileRows) {
      AttendRowsInTiles<true>(work, tile, tail_begin, tail, state);
    } else {
      AttendRowsInTiles<false>(work, tile, tail_begin, tail, state);
    }
  }
  return true;
}

}  // namespace baton::kernels::BATON_ISA

#endif
