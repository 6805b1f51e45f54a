#include "kernels/cpu/panel_matrix.h"

#include <algorithm>
#include <cstring>

#include "kernels/dequantize.h"
#include "kernels/half.h"

namespace baton::kernels {
namespace {

// The layout of a block format; nullptr for F32, F16 and BF16.
const BlockFormat* BlockFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return nullptr;
    case DType::kQ8_0:
      return &kFormatQ8_0;
    case DType::kQ4_0:
      return &kFormatQ4_0;
    case DType::kQ4_1:
      return &kFormatQ4_1;
    case DType::kQ5_0:
      return &kFormatQ5_0;
    case DType::kQ5_1:
      return &kFormatQ5_1;
    case DType::kQ4_K:
      return &kFormatQ4_K;
    case DType::kQ5_K:
      return &kFormatQ5_K;
    case DType::kQ6_K:
      return &kFormatQ6_K;
  }
  return nullptr;
}

int64_t PanelBytes(DType dtype, int64_t cols) {
  if (const BlockFormat* block = BlockFormatOf(dtype)) {
    return cols / block->super_inputs() * block->super_bytes();
  }
  if (dtype == DType::kBF16) return PaddedBf16(cols) * kPanelColumns * 2;
  return cols * kPanelColumns * (dtype == DType::kF32 ? 4 : 2);
}

// Where input k of a column lies in a float panel, in elements.
int64_t FloatIndex(DType dtype, int64_t k, int column) {
  if (dtype == DType::kBF16) return k / 2 * 2 * kPanelColumns + column * 2 + k % 2;
  return k * kPanelColumns + column;
}

// Elements [begin, end) of a column, `begin` even.
template <typename Element>
void PackElements(const std::byte* row, int64_t begin, int64_t end, int column, uint8_t* panel) {
  for (int64_t k = begin; k < end; ++k) {
    std::memcpy(panel + (k * kPanelColumns + column) * sizeof(Element), row + k * sizeof(Element),
                sizeof(Element));
  }
}
void PackBf16Pairs(const std::byte* row, int64_t begin, int64_t end, int column, uint8_t* panel) {
  for (int64_t k = begin; k < end; k += 2) {
    std::memcpy(panel + (k * kPanelColumns + 2 * column) * 2, row + k * 2, k + 1 < end ? 4 : 2);
  }
}

// One panel of a float format, so many inputs of all columns at a time that both sides stay in the
// first-level cache.
void PackFloatPanel(DType dtype, const std::byte* rows, int64_t row_bytes, int columns,
                    int64_t cols, uint8_t* panel) {
  constexpr int64_t kInputs = 64;
  for (int64_t begin = 0; begin < cols; begin += kInputs) {
    const int64_t end = std::min(begin + kInputs, cols);
    for (int column = 0; column < columns; ++column) {
      const std::byte* row = rows + column * row_bytes;
      if (dtype == DType::kBF16) {
        PackBf16Pairs(row, begin, end, column, panel);
      } else if (dtype == DType::kF16) {
        PackElements<uint16_t>(row, begin, end, column, panel);
      } else {
        PackElements<uint32_t>(row, begin, end, column, panel);
      }
    }
  }
}

// Input j of a group: its byte, and whether it is a high nibble.
struct QuantPlace {
  int byte;
  bool high;
};
QuantPlace PlaceOf(const BlockFormat& format, int j, int column) {
  if (format.bits == 8) return {j / 4 * 4 * kPanelColumns + column * 4 + j % 4, false};
  return {j / 8 * 4 * kPanelColumns + column * 4 + j % 4, j % 8 >= 4};
}

void PackSuperBlock(const BlockFormat& format, const QuantBlock& block, int column,
                    uint8_t* super) {
  std::memcpy(super + 2 * column, &block.d, 2);
  if (format.has_min) std::memcpy(super + 2 * (kPanelColumns + column), &block.m, 2);
  uint8_t* group = super + format.header_bytes();
  for (int g = 0; g < format.groups_per_super; ++g, group += format.group_bytes()) {
    if (format.sub_scales) {
      group[column] = static_cast<uint8_t>(block.scales[g]);
      if (format.has_min) group[kPanelColumns + column] = static_cast<uint8_t>(block.mins[g]);
    }
    uint8_t stored[32];
    for (int j = 0; j < 32; ++j) {  // past the end of a group of 16 it is not used
      stored[j] = static_cast<uint8_t>(block.quants[g * format.group + j] + format.zero);
    }
    uint8_t* quads = group + format.sub_bytes() + 4 * column;
    if (format.bits == 8) {
      for (int j = 0; j < format.group; j += 4, quads += 4 * kPanelColumns) {
        std::memcpy(quads, stored + j, 4);
      }
    } else {
      for (int j = 0; j < format.group; j += 8, quads += 4 * kPanelColumns) {
        uint32_t low;
        uint32_t high;
        std::memcpy(&low, stored + j, 4);
        std::memcpy(&high, stored + j + 4, 4);
        low |= high << 4;
        std::memcpy(quads, &low, 4);
      }
    }
  }
}

void PackBlockPanel(const BlockFormat& format, DType dtype, const std::byte* rows,
                    int64_t row_bytes, int columns, int64_t cols, uint8_t* panel) {
  QuantBlock block;
  for (int64_t s = 0; s < cols / format.super_inputs(); ++s) {
    for (int column = 0; column < columns; ++column) {
      UnpackBlock(dtype, rows + column * row_bytes + s * Traits(dtype).block_bytes, block);
      PackSuperBlock(format, block, column, panel + s * format.super_bytes());
    }
  }
}

float LoadHalf(const uint8_t* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return HalfToFloat(half);
}

float DecodeFloat(DType dtype, const uint8_t* panel, int64_t k, int column) {
  const int64_t index = FloatIndex(dtype, k, column);
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, panel + 4 * index, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, panel + 2 * index, sizeof bits);
  return dtype == DType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

// One column of a super-block, with the arithmetic of Dequantize. out: [super_inputs]
void DecodeSuperBlock(const BlockFormat& format, const uint8_t* super, int column, float* out) {
  const float d = LoadHalf(super + 2 * column);
  const float m = format.has_min ? LoadHalf(super + 2 * (kPanelColumns + column)) : 0;
  const uint8_t* group = super + format.header_bytes();
  for (int g = 0; g < format.groups_per_super; ++g, group += format.group_bytes()) {
    float scale = d;
    float offset = m;
    if (format.sub_scales) {
      scale = d * static_cast<float>(format.signed_scales ? static_cast<int8_t>(group[column])
                                                          : int{group[column]});
      if (format.has_min) offset = -(m * static_cast<float>(group[kPanelColumns + column]));
    }
    const uint8_t* quants = group + format.sub_bytes();
    for (int j = 0; j < format.group; ++j, ++out) {
      const QuantPlace place = PlaceOf(format, j, column);
      const int byte = quants[place.byte];
      const int stored = format.bits == 8 ? byte : place.high ? byte >> 4 : byte & 15;
      const float product = scale * static_cast<float>(stored - format.zero);
      *out = format.has_min ? product + offset : product;
    }
  }
}

}  // namespace

PanelMatrix::PanelMatrix(const HostMatrix& host, ThreadPool& pool, WeightArena& arena)
    : dtype_(host.dtype),
      rows_(host.rows),
      cols_(host.cols),
      panel_bytes_(PanelBytes(dtype_, host.cols)),
      memory_(arena.Allocate(panels() * panel_bytes_)) {
  const BlockFormat* block = BlockFormatOf(dtype_);
  const int64_t row_bytes = DTypeBytes(host.dtype, cols_);
  pool.ParallelFor(panels(), 1, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t i = begin; i < end; ++i) {
      const std::byte* rows = host.data.data() + i * kPanelColumns * row_bytes;
      const auto columns =
          static_cast<int>(std::min<int64_t>(kPanelColumns, rows_ - i * kPanelColumns));
      uint8_t* const panel = memory_ + i * panel_bytes_;
      if (block == nullptr) {
        PackFloatPanel(dtype_, rows, row_bytes, columns, cols_, panel);
      } else {
        PackBlockPanel(*block, dtype_, rows, row_bytes, columns, cols_, panel);
      }
    }
  });
}

void PanelMatrix::DecodeRow(int64_t row, float* out) const {
  const uint8_t* from = panel(row / kPanelColumns);
  const int column = static_cast<int>(row % kPanelColumns);
  const BlockFormat* format = BlockFormatOf(dtype_);
  if (format == nullptr) {
    for (int64_t k = 0; k < cols_; ++k) out[k] = DecodeFloat(dtype_, from, k, column);
    return;
  }
  for (int64_t k = 0; k < cols_; k += format->super_inputs(), from += format->super_bytes()) {
    DecodeSuperBlock(*format, from, column, out + k);
  }
}

}  // namespace baton::kernels
