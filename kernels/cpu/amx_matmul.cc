// Panels of weights times rows of activations in tiles.
//
// BF16: TDPBF16PS adds 32 inputs at a time to a float: the sum of the even ones' products and that
// of the odd ones', each one by one, rounded to nearest even, denormals taken as zero. Vectors can
// do just that, and do for the fewest rows, so a row is the same in a batch of any size.
//
// Block formats: exact 32-bit sums of a group by TDPBSSD, then the float operations of
// isa_matmul.cc in their order: the bits are those of avx512, which takes what rows are left.

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/packed_groups.h"
#include "kernels/cpu/simd.h"

namespace baton::kernels::amx {
namespace {

BATON_INLINE int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

BATON_INLINE float* KeptSums(const PanelTask& task, int64_t row) {
  return reinterpret_cast<float*>(task.scratch + kExpandedBytes) +
         (row - task.row_begin) * kPanelColumns;
}
constexpr int64_t kKeptStride = kPanelColumns * sizeof(float);

BATON_INLINE void OutputRow(const PanelTask& task, int64_t row) {
  const float* sums = KeptSums(task, row);
  float* out = task.out + row * task.out_stride;
  for (int v = 0; v < kPanelVectors; ++v, sums += kLanes, out += kLanes) {
    const int columns = task.columns - v * kLanes;
    if (columns <= 0) return;
    const Floats sum = Load(sums);
    if (columns >= kLanes) {
      Store(out, task.add ? Add(Load(out), sum) : sum);
    } else {
      StoreFirst(out, task.add ? Add(LoadFirst(out, columns), sum) : sum, columns);
    }
  }
}

// ---- BF16 -------------------------------------------------------------------------------------

constexpr int kBf16TileBytes = kBf16TileInputs * kPanelColumns * 2;

constexpr int kAheadBytes = 2048;  // of the weights, that are fetched into the second-level cache

// Adds inputs [begin, end) to the kept sums of the rows that the tiles are configured for.
template <bool kSecondRows>
void AddBf16Inputs(const Activations& activations, const PanelTask& task, int64_t row,
                   int64_t begin, int64_t end) {
  float* kept = KeptSums(task, row);
  if (begin == 0) {
    _tile_zero(0);
    _tile_zero(1);
    if (kSecondRows) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, kept, kKeptStride);
    _tile_loadd(1, kept + kTileColumns, kKeptStride);
    if (kSecondRows) {
      _tile_loadd(2, kept + kTileRows * kPanelColumns, kKeptStride);
      _tile_loadd(3, kept + kTileRows * kPanelColumns + kTileColumns, kKeptStride);
    }
  }
  const int64_t stride = activations.bf16_stride * 2;
  const uint16_t* x = activations.bf16 + row * activations.bf16_stride + begin;
  const uint16_t* second_x = x + kTileRows * activations.bf16_stride;
  const uint8_t* weights = task.panel + begin * kPanelColumns * 2;
  for (int64_t k = begin; k < end; k += kBf16TileInputs) {
    if (!kSecondRows) {
      for (int i = 0; i < kBf16TileBytes; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(weights) + kAheadBytes + i, _MM_HINT_T1);
      }
    }
    // Activations are not kept in the first-level cache, where they would displace the weights.
    _tile_stream_loadd(4, x, stride);
    _tile_loadd(6, weights, kPanelColumns * 4);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, weights + kTileRowBytes, kPanelColumns * 4);
    _tile_dpbf16ps(1, 4, 7);
    if (kSecondRows) {
      _tile_stream_loadd(5, second_x, stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    x += kBf16TileInputs;
    second_x += kBf16TileInputs;
    weights += kBf16TileBytes;
  }
  _tile_stored(0, kept, kKeptStride);
  _tile_stored(1, kept + kTileColumns, kKeptStride);
  if (kSecondRows) {
    _tile_stored(2, kept + kTileRows * kPanelColumns, kKeptStride);
    _tile_stored(3, kept + kTileRows * kPanelColumns + kTileColumns, kKeptStride);
  }
}

// What the tiles do, bit for bit, since denormals are zero (thread_pool.h).
template <int kRows>
void AddBf16Rows(const Activations& activations, const PanelTask& task) {
  const uint16_t* x = activations.bf16 + task.row_begin * activations.bf16_stride;
  const uint8_t* weights = task.panel;
  Floats sums[kRows][kPanelVectors];
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) sums[r][v] = Zero();
  }
  for (int64_t k = 0; k < task.inputs; k += kBf16TileInputs) {
    Floats even[kRows][kPanelVectors];
    Floats odd[kRows][kPanelVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) even[r][v] = odd[r][v] = Zero();
    }
    for (int i = 0; i < kBf16TileInputs; i += 2, weights += kPanelColumns * 4) {
      Ints pairs[kPanelVectors];
      BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
        const uint8_t* from = weights + v * 4 * kLanes;
        _mm_prefetch(reinterpret_cast<const char*>(from) + kAheadBytes, _MM_HINT_T1);
        pairs[v] = LoadInts(from);
      }
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        std::memcpy(&pair, x + r * activations.bf16_stride + k + i, 4);
        const Ints inputs = _mm512_set1_epi32(pair);
        BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
          even[r][v] = Fma(EvenBf16(pairs[v]), EvenBf16(inputs), even[r][v]);
          odd[r][v] = Fma(OddBf16(pairs[v]), OddBf16(inputs), odd[r][v]);
        }
      }
    }
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
        sums[r][v] = Add(sums[r][v], Add(even[r][v], odd[r][v]));
      }
    }
  }
  float* kept = KeptSums(task, task.row_begin);
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
      Store(kept + r * kPanelColumns + v * kLanes, sums[r][v]);
    }
  }
}

// Reading the weights from DRAM bounds the fewest rows, and vector loads reach more of it: a tile
// load waits for its 16 rows before the next begins.
void AddFewBf16Rows(const Activations& activations, const PanelTask& task) {
  if (task.row_end - task.row_begin == 1) {
    AddBf16Rows<1>(activations, task);
  } else {
    AddBf16Rows<2>(activations, task);
  }
}

void AddAllBf16Rows(const Activations& activations, const PanelTask& task) {
  constexpr int64_t kInputs = 512;  // of 32 columns, which stay in the first-level cache
  const int64_t inputs = PaddedBf16(task.inputs);
  const int64_t tail = (task.row_end - task.row_begin) % kMaxTileRows;
  const int64_t tail_begin = task.row_end - tail;
  PublishToTiles();
  if (tail_begin > task.row_begin) {
    const TileScope tiles(kBf16Configs.of_rows[kMaxTileRows]);
    for (int64_t k = 0; k < inputs; k += kInputs) {
      for (int64_t row = task.row_begin; row < tail_begin; row += kMaxTileRows) {
        AddBf16Inputs<true>(activations, task, row, k, Min(k + kInputs, inputs));
      }
    }
  }
  if (tail > 0) {
    const TileScope tiles(kBf16Configs.of_rows[tail]);
    if (tail > kTileRows) {
      AddBf16Inputs<true>(activations, task, tail_begin, 0, inputs);
    } else {
      AddBf16Inputs<false>(activations, task, tail_begin, 0, inputs);
    }
  }
}

void MultiplyBf16Panel(const Activations& activations, const PanelTask& task) {
  if (task.row_end - task.row_begin <= 2) {
    AddFewBf16Rows(activations, task);
  } else {
    AddAllBf16Rows(activations, task);
  }
  for (int64_t row = task.row_begin; row < task.row_end; ++row) OutputRow(task, row);
}

// ---- Block formats ----------------------------------------------------------------------------

// Packed groups as TDPBSSD and the scaling want them: i8 [k / 4][column][k % 4], less the zero, and
// floats: scales, unshifts, offsets.
template <BlockFormat kFormat>
struct SignedGroups {
  static constexpr int kQuantBytes = kFormat.group * kPanelColumns;
  static constexpr int kGroupBytes = kQuantBytes + kPanelColumns * (kFormat.has_min ? 12 : 8);

  BATON_INLINE void Expand(const uint8_t* weights, int64_t groups, uint8_t* out) {
    using Packed = PackedGroups<kFormat>;
    const Ints zero = _mm512_set1_epi8(static_cast<char>(kFormat.zero));
    for (int64_t g = 0; g < groups; ++g, out += kGroupBytes) {
      float* floats = reinterpret_cast<float*>(out + kQuantBytes);
      BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
        BATON_UNROLL for (int pair = 0; pair < kFormat.group / 8; ++pair) {
          Ints first;
          Ints second;
          LoadQuadPair<kFormat.bits>(Packed::Quants(weights, g), pair, v, first, second);
          uint8_t* to = out + pair * 8 * kPanelColumns + v * 4 * kLanes;
          StoreInts(to, _mm512_sub_epi8(first, zero));
          StoreInts(to + 4 * kPanelColumns, _mm512_sub_epi8(second, zero));
        }
        const Floats scale = Packed::Scale(weights, g, v);
        Store(floats + v * kLanes, scale);
        Store(floats + kPanelColumns + v * kLanes, Packed::Unshift(weights, g, v, scale));
        if (kFormat.has_min) {
          Store(floats + 2 * kPanelColumns + v * kLanes, Packed::Offset(weights, g, v));
        }
      }
    }
  }
};

constexpr int64_t kBlockInputs = 256;  // whose weights and sums stay in the first-level cache

// Exact sums of one block of inputs for kTileRows rows: a tile for each group and vector.
using GroupDots = int32_t[kPanelVectors][kTileRows][kTileColumns];
template <BlockFormat kFormat>
struct alignas(64) BlockDots {
  GroupDots of_group[kBlockInputs / kFormat.group];
};

// Two groups. A store waits for the sums that it stores and holds up all tiles: so what was begun
// two groups before is stored first.
template <BlockFormat kFormat>
BATON_INLINE void DotTwoGroups(const int8_t* quants, int64_t stride, const uint8_t* weights,
                               int64_t group, int64_t groups, GroupDots* dots) {
  constexpr int64_t kStride = 4 * kPanelColumns;
  constexpr int64_t kGroupBytes = SignedGroups<kFormat>::kGroupBytes;
  quants += group * kFormat.group;
  weights += group * kGroupBytes;
  if (group >= 2) {
    _tile_stored(0, dots[group - 2][0], kTileRowBytes);
    _tile_stored(1, dots[group - 2][1], kTileRowBytes);
  }
  if (group < groups) {
    _tile_loadd(4, quants, stride);
    _tile_loadd(6, weights, kStride);
    _tile_zero(0);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, weights + kTileRowBytes, kStride);
    _tile_zero(1);
    _tile_dpbssd(1, 4, 7);
  }
  if (group >= 2 && group - 1 < groups) {
    _tile_stored(2, dots[group - 1][0], kTileRowBytes);
    _tile_stored(3, dots[group - 1][1], kTileRowBytes);
  }
  if (group + 1 < groups) {
    _tile_loadd(5, quants + kFormat.group, stride);
    _tile_loadd(6, weights + kGroupBytes, kStride);
    _tile_zero(2);
    _tile_dpbssd(2, 5, 6);
    _tile_loadd(7, weights + kGroupBytes + kTileRowBytes, kStride);
    _tile_zero(3);
    _tile_dpbssd(3, 5, 7);
  }
}

// kTileRows rows and all columns of a panel over one block of inputs, begun with `first_input`.
template <BlockFormat kFormat>
void AddGroups(const Activations& activations, const PanelTask& task, int64_t row,
               int64_t first_input, int64_t groups, BlockDots<kFormat>& dots) {
  using Groups = SignedGroups<kFormat>;
  const int64_t stride = activations.quant_stride;
  const int8_t* quants = activations.quants + row * stride + first_input;
  // Tiles and vectors share a port: one after the other is faster than both at a time.
  for (int64_t g = 0; g < groups + 2; g += 2) {
    DotTwoGroups<kFormat>(quants, stride, task.scratch, g, groups, dots.of_group);
  }

  const int64_t scale_stride = activations.group_stride;
  const int64_t offset = row * scale_stride + first_input / kActivationGroup;
  const float* scales = activations.scales + offset;
  const float* scaled_sums = activations.scaled_sums + offset;
  const Ints shift = _mm512_set1_epi32(kShiftBits);
  for (int v = 0; v < kPanelVectors; ++v) {
    float* kept = KeptSums(task, row) + v * kLanes;
    Floats sums[kTileRows];
    BATON_UNROLL for (int r = 0; r < kTileRows; ++r) {
      sums[r] = first_input == 0 ? Zero() : Load(kept + r * kPanelColumns);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const float* floats = reinterpret_cast<const float*>(task.scratch + g * Groups::kGroupBytes +
                                                           Groups::kQuantBytes) +
                            v * kLanes;
      const Floats scale = Load(floats);
      const Floats unshift = Load(floats + kPanelColumns);
      BATON_UNROLL for (int r = 0; r < kTileRows; ++r) {
        const Ints dot = _mm512_add_epi32(LoadInts(dots.of_group[g][v][r]), shift);
        const Floats product = ScaleDot(dot, scale, unshift);
        sums[r] = Fma(product, Set1(scales[r * scale_stride + g]), sums[r]);
      }
      if (kFormat.has_min) {
        const Floats min = Load(floats + 2 * kPanelColumns);
        BATON_UNROLL for (int r = 0; r < kTileRows; ++r) {
          sums[r] = Fma(min, Set1(scaled_sums[r * scale_stride + g]), sums[r]);
        }
      }
    }
    BATON_UNROLL for (int r = 0; r < kTileRows; ++r) Store(kept + r * kPanelColumns, sums[r]);
  }
}

template <BlockFormat kFormat, DType kDType>
void MultiplyBlockPanel(const Activations& activations, const PanelTask& task) {
  using Groups = SignedGroups<kFormat>;
  constexpr int64_t kStep = kFormat.super_inputs();
  static_assert(kBlockInputs % kStep == 0 && kFormat.group == kActivationGroup);
  static_assert(kBlockInputs / kFormat.group * Groups::kGroupBytes <= kExpandedBytes);
  static constexpr TileConfig kConfig = MakeTileConfig(kTileRows, kTileRows, kFormat.group);
  // The rows that no tile is full of are avx512's, which unpacks the weights once more for them:
  // all are where those would be more than a third.
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t tail = rows % kTileRows;
  const int64_t tail_begin = 3 * tail > rows ? task.row_begin : task.row_end - tail;
  if (tail_begin > task.row_begin) {
    const TileScope tiles(kConfig);
    BlockDots<kFormat> dots;
    for (int64_t k = 0; k < task.inputs; k += kBlockInputs) {
      const int64_t groups = (Min(k + kBlockInputs, task.inputs) - k) / kFormat.group;
      const uint8_t* packed = task.panel + k / kStep * kFormat.super_bytes();
      const int64_t packed_bytes = groups / kFormat.groups_per_super * kFormat.super_bytes();
      Groups::Expand(packed, groups, task.scratch);
      PublishToTiles();
      // Meanwhile the next block, or the next panel's first, comes from DRAM: a share with each
      // tile.
      const auto* ahead = reinterpret_cast<const char*>(packed + packed_bytes);
      const int64_t share = packed_bytes * kTileRows / (tail_begin - task.row_begin);
      for (int64_t row = task.row_begin; row < tail_begin; row += kTileRows, ahead += share) {
        for (int64_t i = 0; i < share; i += 64) _mm_prefetch(ahead + i, _MM_HINT_T1);
        AddGroups<kFormat>(activations, task, row, k, groups, dots);
      }
    }
    for (int64_t row = task.row_begin; row < tail_begin; ++row) OutputRow(task, row);
  }
  if (tail_begin < task.row_end) {
    PanelTask rest = task;
    rest.row_begin = static_cast<int32_t>(tail_begin);
    avx512::GetIsaKernels().multiply_panel[static_cast<int>(kDType)](activations, rest);
  }
}

}  // namespace

MultiplyPanel MultiplyPanelOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kQ6_K:  // groups of 16: twice the sums to store and scale
      break;
    case DType::kBF16:
      return MultiplyBf16Panel;
    case DType::kQ8_0:
      return MultiplyBlockPanel<kFormatQ8_0, DType::kQ8_0>;
    case DType::kQ4_0:
      return MultiplyBlockPanel<kFormatQ4_0, DType::kQ4_0>;
    case DType::kQ4_1:
      return MultiplyBlockPanel<kFormatQ4_1, DType::kQ4_1>;
    case DType::kQ5_0:
      return MultiplyBlockPanel<kFormatQ5_0, DType::kQ5_0>;
    case DType::kQ5_1:
      return MultiplyBlockPanel<kFormatQ5_1, DType::kQ5_1>;
    case DType::kQ4_K:
      return MultiplyBlockPanel<kFormatQ4_K, DType::kQ4_K>;
    case DType::kQ5_K:
      return MultiplyBlockPanel<kFormatQ5_K, DType::kQ5_K>;
  }
  return avx512::GetIsaKernels().multiply_panel[static_cast<int>(dtype)];
}

}  // namespace baton::kernels::amx
