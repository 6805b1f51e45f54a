#include "kernels/cuda/cuda_matrix.h"

#include <cstring>

#include "common/status_macros.h"
#include "kernels/dequantize.h"
#include "kernels/half.h"
#include "kernels/host_matrix.h"

namespace baton::kernels::cuda {
namespace {

bool FitsNibbles(DType dtype) {
  return dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ4_K;
}

WeightFormat FormatOf(DType dtype) {
  if (dtype == DType::kF32) return WeightFormat::kF32;
  if (dtype == DType::kF16) return WeightFormat::kF16;
  if (dtype == DType::kBF16) return WeightFormat::kBF16;
  return FitsNibbles(dtype) ? WeightFormat::kNibbles : WeightFormat::kBytes;
}

int32_t Padded(int64_t count, int32_t unit) {
  return static_cast<int32_t>((count + unit - 1) / unit * unit);
}

// The scale of the block's elements from `first` on.
Scale ScaleOf(const QuantBlock& block, int32_t first) {
  const float d = HalfToFloat(block.d);
  const float m = HalfToFloat(block.m);
  if (block.group == 0) return {d, block.has_min ? m : 0.0f};
  const int32_t group = first / block.group;
  return {d * static_cast<float>(block.scales[group]),
          block.has_min ? -(m * static_cast<float>(block.mins[group])) : 0.0f};
}

// One block, whose first element is element `at` of the padded matrix.
void PutBlock(const QuantBlock& block, bool minus_eight, int64_t at, PackedWeights& packed) {
  const int32_t group = packed.shape.group;
  for (int32_t first = 0; first < block.elements; first += group) {
    Scale scale = ScaleOf(block, first);
    if (minus_eight) scale.y = -8 * scale.x;
    packed.scales[static_cast<size_t>((at + first) / group)] = scale;
  }
  auto* values = reinterpret_cast<int8_t*>(packed.values.data());
  if (packed.shape.format == WeightFormat::kBytes) {
    std::memcpy(values + at, block.quants, static_cast<size_t>(block.elements));
    return;
  }
  const int shift = minus_eight ? 8 : 0;
  for (int32_t i = 0; i < block.elements; i += 2) {
    const int low = block.quants[i] + shift;
    const int high = block.quants[i + 1] + shift;
    values[(at + i) / 2] = static_cast<int8_t>(low | high << 4);
  }
}

}  // namespace

absl::StatusOr<PackedWeights> PackWeights(const HostMatrix& host) {
  BATON_RETURN_IF_ERROR(CheckHostMatrix(host));
  PackedWeights packed;
  Weights& shape = packed.shape;
  shape.format = FormatOf(host.dtype);
  shape.rows = static_cast<int32_t>(host.rows);
  shape.cols = static_cast<int32_t>(host.cols);
  shape.padded_rows = Padded(host.rows, kWeightRows);
  shape.padded_cols = Padded(host.cols, kWeightCols);
  const int64_t elements = int64_t{shape.padded_rows} * shape.padded_cols;
  const int32_t block_elements = Traits(host.dtype).block_elements;
  const int64_t row_bytes = DTypeBytes(host.dtype, host.cols);
  if (block_elements == 1) {
    const int64_t element_bytes = DTypeBytes(host.dtype, 1);
    packed.values.resize(static_cast<size_t>(elements * element_bytes));
    for (int64_t row = 0; row < host.rows; ++row) {
      std::memcpy(&packed.values[static_cast<size_t>(row * shape.padded_cols * element_bytes)],
                  &host.data[static_cast<size_t>(row * row_bytes)], static_cast<size_t>(row_bytes));
    }
    return packed;
  }
  shape.group = host.dtype == DType::kQ6_K ? 16 : 32;
  packed.values.resize(
      static_cast<size_t>(shape.format == WeightFormat::kNibbles ? elements / 2 : elements));
  packed.scales.resize(static_cast<size_t>(elements / shape.group));
  QuantBlock block;
  const std::byte* from = host.data.data();
  for (int64_t row = 0; row < host.rows; ++row) {
    for (int64_t col = 0; col < host.cols; col += block_elements) {
      UnpackBlock(host.dtype, from, block);
      PutBlock(block, host.dtype == DType::kQ4_0, row * shape.padded_cols + col, packed);
      from += Traits(host.dtype).block_bytes;
    }
  }
  return packed;
}

}  // namespace baton::kernels::cuda
