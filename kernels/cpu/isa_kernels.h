#pragma once

// The kernels that are compiled once for each instruction set, as a table of functions.
//
// The sources isa_*.cc are compiled with the flags of each instruction set, in a namespace named
// BATON_ISA. They use no templates and no inline functions of other headers (the linker would keep
// one copy of those, perhaps one with instructions that the machine lacks), so all arguments are
// plain structs. None of these functions allocates; all are safe to call from several threads with
// disjoint outputs and scratch.

#include <cstdint>

#include "common/dtype.h"
#include "kernels/cpu/panel_format.h"
#include "kernels/kv_dtype.h"

namespace baton::kernels {

// The rows of a matrix product's left side, in the forms that the panel formats use.
struct Activations {
  const float* x;  // [rows][x_stride], for F32, F16, and BF16 where bf16_activations is false
  int64_t x_stride;
  const uint16_t* bf16;  // [rows][bf16_stride]
  int64_t bf16_stride;
  // For block formats: x = scale * quant in groups of kActivationGroup. [rows][quant_stride] and
  // [rows][group_stride]; half_sums has two sums a group.
  const int8_t* quants;
  int64_t quant_stride;
  const float* scales;
  const float* scaled_sums;   // scale * sum of the group's quants
  const int32_t* minus_sums;  // -(sum of the group's quants)
  const int32_t* minus_half_sums;
  int64_t group_stride;
};

// out[r][c] (+)= sum_k activations[r][k] * panel[c][k] for row_begin <= r < row_end and the panel's
// first `columns` columns.
struct PanelTask {
  const uint8_t* panel;
  int64_t inputs;
  int32_t row_begin;
  int32_t row_end;
  float* out;  // of row 0 and the panel's first column
  int64_t out_stride;
  int32_t columns;
  bool add;
  uint8_t* scratch;  // kPanelScratchBytes, aligned to 64
};
inline constexpr int kMaxTaskRows = 256;
inline constexpr int kExpandedBytes = 28 * 1024;
inline constexpr int kPanelScratchBytes = kExpandedBytes + kMaxTaskRows * kPanelColumns * 4;

// One token's key and value of one kv head, and the head's keys and values in the token's block.
struct KvToken {
  KvDType dtype;
  int32_t head_dim;
  int32_t block_tokens;
  int32_t index;  // of the token in its block
  const float* key;
  const float* value;
  uint8_t* keys;  // of KvLayout::key_offset
  uint8_t* values;
};

// One kv head's tokens [from_token, from_token + tokens) of a block, as those from to_token on of a
// block of another format. Both are multiples of 8; the tokens end inside both blocks.
struct KvConversion {
  KvDType from;
  KvDType to;
  int32_t head_dim;
  int32_t from_block_tokens;  // at most kTilePositions
  int32_t to_block_tokens;
  int32_t from_token;
  int32_t to_token;
  int32_t tokens;
  const uint8_t* from_keys;  // of KvLayout::key_offset
  const uint8_t* from_values;
  uint8_t* to_keys;
  uint8_t* to_values;
  float* scratch;  // KvConversionScratchFloats
};

// One sequence's query rows for heads that share a kv head. A query vector is one row's one head.
struct AttentionTask {
  const uint8_t* slab;
  const int32_t* block_table;
  int32_t block_tokens;  // divides kTilePositions
  int64_t block_bytes;
  int64_t key_offset;  // inside a block, of this layer and kv head
  int64_t value_offset;
  int32_t head_dim;
  KvDType dtype;
  float scale;     // of q * k
  const float* q;  // of the first row and head; rows are row_stride apart, heads head_dim
  float* out;
  int64_t row_stride;
  int32_t heads;
  int32_t rows;
  int32_t first_position;  // of the first row
  float* scratch;          // AttentionScratchFloats, aligned to 64
  // What this thread will likely do next, to be fetched ahead; or null.
  const AttentionTask* next;
  int32_t next_segment;
};
inline constexpr int kTilePositions = 64;
// Each segment of a sequence is summed up on its own, and segments are then merged in order. So
// several threads can work on one long sequence with the same result as one.
inline constexpr int kSegmentTiles = 4;
inline constexpr int kSegmentPositions = kSegmentTiles * kTilePositions;
inline constexpr int kMaxQueryVectors = 192;  // rows * heads of a task
inline constexpr int kMaxLanes = 16;

// Floats of the running softmax of `vectors` query vectors: for each an output of padded_dim (a
// multiple of kMaxLanes), kMaxLanes partial sums, and a maximum.
static constexpr int64_t SoftmaxStateFloats(int64_t vectors, int64_t padded_dim) {
  return vectors * (padded_dim + 2 * kMaxLanes);
}
static constexpr int32_t PaddedDim(int32_t head_dim) {
  return (head_dim + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
}
// Of one task: two states, the scaled queries, weights of a tile, a tile's keys and values.
static constexpr int64_t AttentionScratchFloats(int32_t head_dim) {
  return 2 * SoftmaxStateFloats(kMaxQueryVectors, PaddedDim(head_dim)) +
         kMaxQueryVectors * (PaddedDim(head_dim) + kTilePositions) +
         2 * int64_t{kTilePositions} * PaddedDim(head_dim);
}

static constexpr int64_t KvConversionScratchFloats(int32_t head_dim) {
  return int64_t{kTilePositions} * PaddedDim(head_dim);
}

enum class RotatedPairs { kInterleaved, kHalves };

inline constexpr int kDTypes = static_cast<int>(DType::kQ6_K) + 1;

struct IsaKernels {
  const char* name;
  bool bf16_activations;
  // A task has a multiple of so many rows where there are enough.
  int32_t tile_rows;

  // One row of `cols` inputs, a multiple of kActivationGroup.
  void (*quantize_row)(const float* x, int64_t cols, int8_t* quants, float* scales,
                       float* scaled_sums, int32_t* minus_sums, int32_t* minus_half_sums);
  // Rounds to BF16, with zeros up to PaddedBf16(cols).
  void (*round_row_to_bf16)(const float* x, int64_t cols, uint16_t* out);
  // By DType.
  void (*multiply_panel[kDTypes])(const Activations& activations, const PanelTask& task);
  // The same bits, for a few rows (cpu_matmul.cc): a panel takes less than a microsecond then,
  // so there is nothing to be decided for each.
  void (*multiply_few_rows[kDTypes])(const Activations& activations, const PanelTask& task);

  void (*rms_norm_row)(const float* x, const float* weight, int64_t cols, float epsilon,
                       float* out);
  void (*swiglu)(const float* gate, const float* up, int64_t count, float* out);
  // Rotates `heads` vectors of head_dim in place; cosine and sine: [rotary_dim / 2].
  void (*rotate)(RotatedPairs pairs, int32_t rotary_dim, const float* cosine, const float* sine,
                 int32_t heads, int32_t head_dim, float* vectors);
  void (*store_kv)(const KvToken& token);
  void (*convert_kv)(const KvConversion& conversion);

  // The whole of a task: all segments, merged, written to out.
  void (*attend)(const AttentionTask& task);
  // One segment of a task, left in `state`.
  void (*attend_segment)(const AttentionTask& task, int32_t segment, float* state);
  // Merges `segments` states, one after another in memory, and writes out.
  void (*merge_segments)(const AttentionTask& task, float* states, int32_t segments);
};

namespace amx {
const IsaKernels& GetIsaKernels();
}
namespace avx512 {
const IsaKernels& GetIsaKernels();
}
namespace avx2 {
const IsaKernels& GetIsaKernels();
}
namespace portable {
const IsaKernels& GetIsaKernels();
}

}  // namespace baton::kernels
