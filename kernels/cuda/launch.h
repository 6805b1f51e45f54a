#pragma once

// The kernels as functions of plain values and device pointers. They start on `stream` and return;
// what goes wrong shows in the runtime's last error. Each is defined in the .cu file of its name.

#include <cstdint>

#include "kernels/kv_dtype.h"

struct CUstream_st;

namespace baton::kernels::cuda {

using Stream = CUstream_st*;

// How a weight matrix lies on the device: rows padded to kWeightRows with zeros, columns to
// kWeightCols. kNibbles and kBytes hold element = quant * scale.x + scale.y, with one scale for
// each `group` columns:
//   kF32, kF16, kBF16  [rows][cols] as such
//   kNibbles           [rows][cols / 32][16]: byte j has elements 2 j (low) and 2 j + 1, from 0
//   kBytes             [rows][cols] signed
enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kNibbles, kBytes };
inline constexpr int32_t kWeightRows = 64;
inline constexpr int32_t kWeightCols = 64;

struct Scale {
  float x;
  float y;
};

struct Weights {
  WeightFormat format = WeightFormat::kF32;
  int32_t group = 0;  // 16 or 32; 32 with kNibbles
  int32_t rows = 0;   // as in the model
  int32_t cols = 0;
  int32_t padded_rows = 0;
  int32_t padded_cols = 0;
  const void* values = nullptr;
  const Scale* scales = nullptr;  // [padded_rows][padded_cols / group]
};

void LaunchEmbed(const Weights& table, const int32_t* tokens, int32_t count, float* out,
                 Stream stream);
// Rows of inputs for the tensor cores: [rows][padded_cols] of F16 or BF16, zeros in the padding.
// F16 rows are multiplied by a power of two that keeps their largest element in range;
// `row_scales` are its inverses. Ops that make rows round them at once where `values` is not null.
struct Rounding {
  void* values = nullptr;
  float* row_scales = nullptr;
  int32_t padded_cols = 0;
  bool bf16 = false;
};
void LaunchRound(const float* x, int32_t rows, int32_t cols, const Rounding& rounding,
                 Stream stream);

void LaunchRmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols, float epsilon,
                   float* out, const Rounding& rounding, Stream stream);
void LaunchSwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out,
                  const Rounding& rounding, Stream stream);

// Sums over k go by segments, at most kMatMulSegments, that depend on the columns alone, and are
// added in order: a row's bits depend on neither the number of rows nor the split.
inline constexpr int32_t kMatMulSegments = 8;

// The results of a block: rows, and weight rows. Of kFew its warps do a segment each; of the others
// a block does all, or one.
enum class MatMulTile : uint8_t { kFew, kSome, kMany };
struct MatMulTileSize {
  int32_t rows;
  int32_t weight_rows;
};
inline constexpr MatMulTileSize kMatMulTiles[] = {{16, 16}, {64, 128}, {128, 128}};
// Of more, blocks of 16 weight rows would read more inputs than weights.
inline constexpr int32_t kMatMulFewRows = 8;

struct MatMulPlan {
  MatMulTile tile = MatMulTile::kFew;
  int32_t row_tiles = 0;
  int32_t column_tiles = 0;
  int32_t segment_cols = 0;  // a multiple of kWeightCols
  int32_t segments = 0;
  bool split = false;  // each segment in blocks of its own, summed by another kernel
  int64_t partial_floats = 0;
};
MatMulPlan PlanMatMul(int32_t weight_rows, int32_t padded_cols, int32_t rows,
                      int32_t multiprocessors);

// out[r][n] (+)= sum_k x[r][k] * weights[n][k], of all formats but kF32, from LaunchRound's rows.
// `partials`: plan.partial_floats.
void LaunchMatMul(const Weights& weights, const MatMulPlan& plan, const void* x,
                  const float* row_scales, int32_t rows, float* out, bool add, float* partials,
                  Stream stream);
// The same of kF32, from the rows themselves.
void LaunchMatMulF32(const Weights& weights, const float* x, int32_t rows, float* out, bool add,
                     Stream stream);

// KvLayout's sizes, and the slab.
struct Cache {
  KvDType dtype = KvDType::kF16;
  int32_t together = 1;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 0;
  int64_t data_bytes = 0;
  int64_t head_bytes = 0;
  int64_t block_bytes = 0;
  int64_t key_offset = 0;  // of the layer's first head
  int64_t value_offset = 0;
};

// Where the rows of a step belong. Built by BuildStepTables.
struct RowPlace {
  int32_t position;
  int32_t table;  // index of its sequence's first entry in the block tables
};
// Queries of one sequence and kv head that share keys: `count` of row_count * group from `first`
// on, query i being of row first_row + i / group and head i % group of the group.
struct QueryTile {
  int32_t first_row;
  int32_t first_position;
  int32_t table;
  int32_t first;
  int32_t count;
};
inline constexpr int32_t kQueryTile = 16;
inline constexpr int32_t kSegmentTokens = 256;

struct RopeArguments {
  Cache cache;
  bool interleaved = false;
  int32_t rotary_dim = 0;
  const float* cosine = nullptr;
  const float* sine = nullptr;
  const RowPlace* places = nullptr;
  const int32_t* tables = nullptr;
  int32_t rows = 0;
  int32_t heads = 0;
  float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  char* slab = nullptr;
};
void LaunchRopeAndStoreKv(const RopeArguments& arguments, Stream stream);

struct AttentionArguments {
  Cache cache;
  const QueryTile* tiles = nullptr;
  int32_t tile_count = 0;
  const RowPlace* places = nullptr;
  const int32_t* tables = nullptr;
  int32_t rows = 0;
  int32_t heads = 0;
  float scale = 0;
  int32_t segments = 0;       // of the longest sequence
  float* partials = nullptr;  // null: each block does all segments of its tile
  const float* q = nullptr;
  float* out = nullptr;
  const char* slab = nullptr;
};
inline int64_t AttentionPartialFloats(int32_t rows, int32_t heads, int32_t segments,
                                      int32_t head_dim) {
  return int64_t{rows} * heads * segments * (head_dim + 2);
}
// Shared memory of a block; the device must have so much (see AllowAttention).
int32_t AttentionSharedBytes(int32_t head_dim);
// Raises the kernels' limit to `shared_bytes`; false where the device refuses.
bool AllowAttention(int32_t shared_bytes);
void LaunchAttention(const AttentionArguments& arguments, Stream stream);

// Of attention on the tensor cores, for LaunchAttention: whether it knows the cache; its kernels,
// without the merging of segments.
bool UsesTensorCores(const Cache& cache);
bool AllowTensorAttention();
void LaunchTensorAttention(const AttentionArguments& arguments, Stream stream);

// Whether the segments of a step's tiles go to blocks of their own.
bool SplitsAttention(int32_t tile_count, int32_t kv_heads, int32_t segments, int64_t partial_bytes,
                     int32_t multiprocessors);

// Drawing tokens. A row's result is kLeftToHost where the host must draw it.
inline constexpr int32_t kSumBlock = 2048;  // engine/softmax.h's kSoftmaxBlock
inline constexpr int32_t kMostVocab = 1 << 19;
inline constexpr int32_t kMostCandidates = 1024;
inline constexpr int32_t kLeftToHost = -1;

struct DrawEdit {
  int32_t token;
  float bias;
  int32_t count;  // of the token in the output; -1: it is not penalised
  int32_t masked;
};
struct DrawRow {
  double uniform;
  float temperature;
  float top_p;
  float min_p;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t top_k;
  int32_t first_edit;
  int32_t edit_count;
  int32_t drawn;  // 0: nothing is done
};
struct DrawArguments {
  const float* logits = nullptr;  // [rows][vocab]
  int32_t vocab = 0;
  const DrawRow* rows = nullptr;
  const DrawEdit* edits = nullptr;  // each row's of different tokens
  float* values = nullptr;          // scratch as large as the logits
  int32_t* tokens = nullptr;
};
bool AllowDraw();
void LaunchDraw(const DrawArguments& arguments, int32_t rows, Stream stream);

// Gives the operations that it starts. out: [blocks][kProbeThreads].
inline constexpr int32_t kProbeThreads = 256;
double LaunchTensorProbe(int32_t blocks, int32_t iterations, float* out, Stream stream);

}  // namespace baton::kernels::cuda
