// Panels of weights times rows of activations.
//
// For one row and column the float operations are the same, in the same order, whatever the tile:
// group after group (or input after input) into one accumulator, which is stored and loaded between
// blocks of inputs. So a row has the same bits in a batch of any size.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/packed_groups.h"
#include "kernels/cpu/simd.h"

namespace baton::kernels::BATON_ISA {
namespace {

// Tiles of so many rows by kTileVectors vectors of columns: as the registers allow, and for packed
// weights more, because each tile unpacks them anew.
#if defined(__AVX512F__)
constexpr int kPackedRows = 6;
constexpr int kExpandedRows = 4;
constexpr int kFloatRows = 8;
#elif defined(__AVX2__)
constexpr int kPackedRows = 3;
constexpr int kExpandedRows = 3;
constexpr int kFloatRows = 5;
#else
constexpr int kPackedRows = 2;
constexpr int kExpandedRows = 2;
constexpr int kFloatRows = 4;
#endif
constexpr int kTileVectors = 2;

// With more rows than this, packed weights are first expanded into scratch.
constexpr int kExpandAboveRows = 64;

BATON_INLINE int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// What is the same for all tiles of one block of inputs of a panel.
struct InputBlock {
  int64_t begin;
  int64_t end;
  const uint8_t* weights;  // of input `begin`
};

// The accumulators of a tile begin as zero or as what the previous block of inputs left.
template <int kRows>
BATON_INLINE void LoadTile(const PanelTask& task, const InputBlock& block, int64_t row, int vector,
                           Floats (&sums)[kRows][kTileVectors]) {
  const float* kept = reinterpret_cast<const float*>(task.scratch + kExpandedBytes) +
                      (row - task.row_begin) * kPanelColumns + vector * kLanes;
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      sums[r][v] = block.begin == 0 ? Zero() : Load(kept + r * kPanelColumns + v * kLanes);
    }
  }
}

BATON_INLINE void Output(const PanelTask& task, float* out, int column, Floats sum) {
  const int columns = task.columns - column;
  if (columns >= kLanes) {
    Store(out, task.add ? Add(Load(out), sum) : sum);
  } else if (columns > 0) {
    StoreFirst(out, task.add ? Add(LoadFirst(out, columns), sum) : sum, columns);
  }
}

template <int kRows>
BATON_INLINE void StoreTile(const PanelTask& task, const InputBlock& block, int64_t row, int vector,
                            const Floats (&sums)[kRows][kTileVectors]) {
  if (block.end < task.inputs) {
    float* kept = reinterpret_cast<float*>(task.scratch + kExpandedBytes) +
                  (row - task.row_begin) * kPanelColumns + vector * kLanes;
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        Store(kept + r * kPanelColumns + v * kLanes, sums[r][v]);
      }
    }
    return;
  }
  BATON_UNROLL for (int r = 0; r < kRows; ++r) {
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const int column = (vector + v) * kLanes;
      Output(task, task.out + (row + r) * task.out_stride + column, column, sums[r][v]);
    }
  }
}

// ---- Block formats ----------------------------------------------------------------------------

// PackedGroups after ExpandGroups: bytes [k / 4][column][k % 4], and floats: scales, unshifts,
// offsets.
template <BlockFormat kFormat>
struct ExpandedGroups {
  static constexpr int kBits = 8;
  static constexpr int kQuantBytes = kFormat.group * kPanelColumns;
  static constexpr int kGroupBytes = kQuantBytes + kPanelColumns * (kFormat.has_min ? 12 : 8);

  BATON_INLINE const uint8_t* Quants(const uint8_t* weights, int64_t group) {
    return weights + group * kGroupBytes;
  }
  BATON_INLINE const float* Floats32(const uint8_t* weights, int64_t group) {
    return reinterpret_cast<const float*>(Quants(weights, group) + kQuantBytes);
  }
  BATON_INLINE Floats Scale(const uint8_t* weights, int64_t group, int vector) {
    return Load(Floats32(weights, group) + vector * kLanes);
  }
  BATON_INLINE Floats Unshift(const uint8_t* weights, int64_t group, int vector, Floats) {
    return Load(Floats32(weights, group) + kPanelColumns + vector * kLanes);
  }
  BATON_INLINE Floats Offset(const uint8_t* weights, int64_t group, int vector) {
    return Load(Floats32(weights, group) + 2 * kPanelColumns + vector * kLanes);
  }
  BATON_INLINE void Prefetch(const uint8_t*, int64_t) {}
};

template <BlockFormat kFormat>
void ExpandGroups(const uint8_t* weights, int64_t groups, uint8_t* out) {
  using Packed = PackedGroups<kFormat>;
  using Expanded = ExpandedGroups<kFormat>;
  for (int64_t g = 0; g < groups; ++g) {
    uint8_t* quants = out + g * Expanded::kGroupBytes;
    float* floats = reinterpret_cast<float*>(quants + Expanded::kQuantBytes);
    BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
      BATON_UNROLL for (int pair = 0; pair < kFormat.group / 8; ++pair) {
        Ints first;
        Ints second;
        LoadQuadPair<kFormat.bits>(Packed::Quants(weights, g), pair, v, first, second);
        uint8_t* to = quants + pair * 8 * kPanelColumns + v * 4 * kLanes;
        StoreInts(to, first);
        StoreInts(to + 4 * kPanelColumns, second);
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

// kRows rows times kTileVectors vectors of a panel's columns over one block of inputs.
template <BlockFormat kFormat, typename Groups, int kRows>
BATON_INLINE void QuantTile(const Activations& activations, const PanelTask& task,
                            const InputBlock& block, int64_t row, int vector) {
  constexpr bool kHalfGroups = kFormat.group < kActivationGroup;
  constexpr int kZero = kFormat.zero;
  const int64_t first_group = block.begin / kActivationGroup;
  const int8_t* quants = activations.quants + row * activations.quant_stride + block.begin;
  const int64_t offset = row * activations.group_stride + first_group;
  const float* scales = activations.scales + offset;
  const float* scaled_sums = activations.scaled_sums + offset;
  const int32_t* minus_sums =
      kHalfGroups ? activations.minus_half_sums + 2 * offset : activations.minus_sums + offset;
  const int64_t sum_stride = activations.group_stride * (kHalfGroups ? 2 : 1);
  const int64_t groups = (block.end - block.begin) / kFormat.group;

  Floats sums[kRows][kTileVectors];
  LoadTile(task, block, row, vector, sums);
  for (int64_t g = 0; g < groups; ++g) {
    Ints dots[kRows][kTileVectors];
    BATON_UNROLL for (int r = 0; r < kRows; ++r) {
      const Ints start = DotStart<kZero>(minus_sums[r * sum_stride + g]);
      BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) dots[r][v] = start;
    }
    const uint8_t* weights = Groups::Quants(block.weights, g);
    BATON_UNROLL for (int pair = 0; pair < kFormat.group / 8; ++pair) {
      Ints first[kTileVectors];
      Ints second[kTileVectors];
      BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        LoadQuadPair<Groups::kBits>(weights, pair, vector + v, first[v], second[v]);
      }
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        const int8_t* from = quants + r * activations.quant_stride + g * kFormat.group + 8 * pair;
        const Ints low = BroadcastQuad(from);
        const Ints high = BroadcastQuad(from + 4);
        BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          dots[r][v] = Dot<kZero>(Dot<kZero>(dots[r][v], first[v], low), second[v], high);
        }
      }
    }
    const int64_t a = kHalfGroups ? g / 2 : g;
    BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const Floats scale = Groups::Scale(block.weights, g, vector + v);
      // Exact, because scales have few bits: 11, or 17 with a sub-scale.
      const Floats unshift = Groups::Unshift(block.weights, g, vector + v, scale);
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        const Floats product = ScaleDot(dots[r][v], scale, unshift);
        sums[r][v] = Fma(product, Set1(scales[r * activations.group_stride + a]), sums[r][v]);
      }
      if (kFormat.has_min) {
        const Floats min = Groups::Offset(block.weights, g, vector + v);
        BATON_UNROLL for (int r = 0; r < kRows; ++r) {
          const float sum = scaled_sums[r * activations.group_stride + a];
          sums[r][v] = Fma(min, Set1(sum), sums[r][v]);
        }
      }
    }
    Groups::Prefetch(block.weights, g);
  }
  StoreTile(task, block, row, vector, sums);
}

template <BlockFormat kFormat, typename Groups, int kMaxRows>
struct QuantKernel {
  static constexpr int kTileRows = kMaxRows;
  template <int kRows>
  static void Tile(const Activations& activations, const PanelTask& task, const InputBlock& block,
                   int64_t row) {
    for (int v = 0; v < kPanelVectors; v += kTileVectors) {
      QuantTile<kFormat, Groups, kRows>(activations, task, block, row, v);
    }
  }
};

// ---- Float formats ----------------------------------------------------------------------------

struct F32Weights {
  BATON_INLINE Floats Row(const uint8_t* weights, int64_t k, int vector) {
    return Load(reinterpret_cast<const float*>(weights) + k * kPanelColumns + vector * kLanes);
  }
};
struct F16Weights {
  BATON_INLINE Floats Row(const uint8_t* weights, int64_t k, int vector) {
    return LoadHalves(weights + 2 * (k * kPanelColumns + vector * kLanes));
  }
};
struct Bf16Weights {
  BATON_INLINE Floats Row(const uint8_t* weights, int64_t k, int vector) {
    const Ints pairs = LoadInts(weights + 4 * (k / 2 * kPanelColumns + vector * kLanes));
    return k % 2 == 0 ? EvenBf16(pairs) : OddBf16(pairs);
  }
};

template <typename Weights>
struct FloatKernel {
  static constexpr int kTileRows = kFloatRows;
  template <int kRows>
  static void Tile(const Activations& activations, const PanelTask& task, const InputBlock& block,
                   int64_t row) {
    const int64_t stride = activations.x_stride;
    const float* x = activations.x + row * stride + block.begin;
    for (int vector = 0; vector < kPanelVectors; vector += kTileVectors) {
      Floats sums[kRows][kTileVectors];
      LoadTile(task, block, row, vector, sums);
      for (int64_t k = 0; k < block.end - block.begin; ++k) {
        Floats weights[kTileVectors];
        BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          weights[v] = Weights::Row(block.weights, k, vector + v);
        }
        BATON_UNROLL for (int r = 0; r < kRows; ++r) {
          const Floats input = Set1(x[r * stride + k]);
          BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
            sums[r][v] = Fma(weights[v], input, sums[r][v]);
          }
        }
      }
      StoreTile(task, block, row, vector, sums);
    }
  }
};

#if defined(__AVX512BF16__)
struct Bf16Kernel {
  static constexpr int kTileRows = kFloatRows;
  template <int kRows>
  static void Tile(const Activations& activations, const PanelTask& task, const InputBlock& block,
                   int64_t row) {
    const int64_t stride = activations.bf16_stride;
    const uint16_t* x = activations.bf16 + row * stride + block.begin;
    static_assert(kPanelVectors == kTileVectors);
    Floats sums[kRows][kTileVectors];
    LoadTile(task, block, row, 0, sums);
    for (int64_t k = 0; k < block.end - block.begin; k += 2) {
      const uint8_t* from = block.weights + k * 2 * kPanelColumns;
      _mm_prefetch(reinterpret_cast<const char*>(from) + 2048, _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(from) + 2112, _MM_HINT_T1);
      __m512bh weights[kTileVectors];
      BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        weights[v] = reinterpret_cast<__m512bh>(LoadInts(from + v * 4 * kLanes));
      }
      BATON_UNROLL for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        std::memcpy(&pair, x + r * stride + k, 4);
        const auto input = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
        BATON_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          sums[r][v] = _mm512_dpbf16_ps(sums[r][v], weights[v], input);
        }
      }
    }
    StoreTile(task, block, row, 0, sums);
  }
};
#endif

// ---- The driver -------------------------------------------------------------------------------

// The last rows of a task, fewer than a full tile.
template <typename Kernel, int kRows>
BATON_INLINE void TailTile(const Activations& activations, const PanelTask& task,
                           const InputBlock& block, int64_t row, int64_t rows) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Kernel::template Tile<kRows>(activations, task, block, row);
    } else {
      TailTile<Kernel, kRows - 1>(activations, task, block, row, rows);
    }
  }
}

template <typename Kernel>
void MultiplyRows(const Activations& activations, const PanelTask& task, const InputBlock& block) {
  int64_t row = task.row_begin;
  for (; row + Kernel::kTileRows <= task.row_end; row += Kernel::kTileRows) {
    Kernel::template Tile<Kernel::kTileRows>(activations, task, block, row);
  }
  TailTile<Kernel, Kernel::kTileRows - 1>(activations, task, block, row, task.row_end - row);
}

template <BlockFormat kFormat>
void MultiplyBlockPanel(const Activations& activations, const PanelTask& task) {
  // Up to 512 inputs of 32 columns, which stay in the first-level cache; blocks of about equal
  // size.
  constexpr int64_t kInputs = 512;
  constexpr int64_t kStep = kFormat.super_inputs();
  static_assert(kInputs % kStep == 0 && kStep % kActivationGroup == 0);
  static_assert(kInputs / kFormat.group * ExpandedGroups<kFormat>::kGroupBytes <= kExpandedBytes);
  const int64_t blocks = (task.inputs + kInputs - 1) / kInputs;
  const int64_t inputs = ((task.inputs + blocks - 1) / blocks + kStep - 1) / kStep * kStep;
  constexpr bool kExpandable = kFormat.bits == 4 || kFormat.sub_scales;
  const bool expand = kExpandable && task.row_end - task.row_begin > kExpandAboveRows;
  for (int64_t k = 0; k < task.inputs; k += inputs) {
    InputBlock block{k, Min(k + inputs, task.inputs), nullptr};
    block.weights = task.panel + k / kFormat.super_inputs() * kFormat.super_bytes();
    if (expand) {
      ExpandGroups<kFormat>(block.weights, (block.end - k) / kFormat.group, task.scratch);
      block.weights = task.scratch;
      MultiplyRows<QuantKernel<kFormat, ExpandedGroups<kFormat>, kExpandedRows>>(activations, task,
                                                                                 block);
    } else {
      MultiplyRows<QuantKernel<kFormat, PackedGroups<kFormat>, kPackedRows>>(activations, task,
                                                                             block);
    }
  }
}

template <typename Weights, bool kExpandable>
void MultiplyFloatPanel(const Activations& activations, const PanelTask& task) {
  constexpr int64_t kInputs = 128;
  static_assert(kInputs * kPanelColumns * sizeof(float) <= kExpandedBytes);
  constexpr int kElementBytes = kExpandable ? 2 : 4;
  const bool expand = kExpandable && task.row_end - task.row_begin > kExpandAboveRows;
  for (int64_t k = 0; k < task.inputs; k += kInputs) {
    InputBlock block{k, Min(k + kInputs, task.inputs), nullptr};
    block.weights = task.panel + k * kPanelColumns * kElementBytes;
    if (expand) {
      float* expanded = reinterpret_cast<float*>(task.scratch);
      for (int64_t i = 0; i < block.end - k; ++i) {
        BATON_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
          Store(expanded + i * kPanelColumns + v * kLanes, Weights::Row(block.weights, i, v));
        }
      }
      block.weights = task.scratch;
      MultiplyRows<FloatKernel<F32Weights>>(activations, task, block);
    } else {
      MultiplyRows<FloatKernel<Weights>>(activations, task, block);
    }
  }
}

#if defined(__AVX512BF16__)
void MultiplyBf16Panel(const Activations& activations, const PanelTask& task) {
  constexpr int64_t kInputs = 256;
  for (int64_t k = 0; k < task.inputs; k += kInputs) {
    const InputBlock block{k, Min(k + kInputs, task.inputs), task.panel + k * kPanelColumns * 2};
    MultiplyRows<Bf16Kernel>(activations, task, block);
  }
}
#endif

}  // namespace

MultiplyPanel MultiplyPanelOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return MultiplyFloatPanel<F32Weights, false>;
    case DType::kF16:
      return MultiplyFloatPanel<F16Weights, true>;
#if defined(__AVX512BF16__)
    case DType::kBF16:
      return MultiplyBf16Panel;
#else
    case DType::kBF16:
      return MultiplyFloatPanel<Bf16Weights, true>;
#endif
    case DType::kQ8_0:
      return MultiplyBlockPanel<kFormatQ8_0>;
    case DType::kQ4_0:
      return MultiplyBlockPanel<kFormatQ4_0>;
    case DType::kQ4_1:
      return MultiplyBlockPanel<kFormatQ4_1>;
    case DType::kQ5_0:
      return MultiplyBlockPanel<kFormatQ5_0>;
    case DType::kQ5_1:
      return MultiplyBlockPanel<kFormatQ5_1>;
    case DType::kQ4_K:
      return MultiplyBlockPanel<kFormatQ4_K>;
    case DType::kQ5_K:
      return MultiplyBlockPanel<kFormatQ5_K>;
    case DType::kQ6_K:
      return MultiplyBlockPanel<kFormatQ6_K>;
  }
  return nullptr;
}

}  // namespace baton::kernels::BATON_ISA
