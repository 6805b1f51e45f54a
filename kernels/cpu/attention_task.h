#pragma once

// What an attention task works on, and where a tile of it lies in the cache; see isa_attention.cc.

#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/kv_simd.h"

namespace baton::kernels::BATON_ISA {

// Query vectors that are computed together, and vectors of positions (scores) or of elements
// (values) for each: as many sums as there are registers. Up to kWideRows query vectors take
// kMostVectors at once, more of them half, and half of that where a sum takes two registers.
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
template <typename Math, int kRows>
constexpr int kVectorsFor = (kRows <= kWideRows ? kMostVectors : kMostVectors / 2) / Math::kSums;
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

static State StateAt(float* memory, int32_t vectors, int32_t padded_dim) {
  float* sums = memory + int64_t{vectors} * padded_dim;
  return {memory, sums, sums + vectors * kMaxLanes};
}

static Work PrepareWork(const AttentionTask& task) {
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

// All of a few query vectors at once; of many, those that take the widest steps.
BATON_INLINE int32_t RowsAtOnce(int32_t rows) { return rows <= kMostRows ? kMostRows : kWideRows; }

// The positions of a tile that a query vector sees.
BATON_INLINE int32_t SeenIn(const Work& work, int32_t tile_begin, int32_t vector) {
  if (tile_begin + kTilePositions <= work.task.first_position) return kTilePositions;
  return Min(kTilePositions, work.PositionOf(vector) - tile_begin + 1);
}

}  // namespace baton::kernels::BATON_ISA
