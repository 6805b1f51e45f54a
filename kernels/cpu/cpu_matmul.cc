#include <algorithm>

#include "common/status_macros.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/dequantize.h"
#include "kernels/host_matrix.h"

namespace baton::kernels {
namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kLeastRowsOfABlock = 96;
// Of a task's BF16 activations, so that they stay in the second-level cache from panel to panel.
constexpr int64_t kTaskActivationBytes = 3 << 19;
constexpr int64_t kFewRows = 16;  // a panel of so many is over too soon to be a task of its own

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

const PanelMatrix& PanelsOf(const Matrix* matrix) {
  return static_cast<const PanelMatrix&>(*matrix);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> CpuOps::LoadMatrix(const HostMatrix& host) {
  BATON_RETURN_IF_ERROR(CheckHostMatrix(host));
  ReserveActivations(host.cols);
  return std::make_unique<PanelMatrix>(host, pool_, weights_);
}

void CpuOps::ReserveActivations(int64_t cols) {
  const int64_t width = RoundUp(cols, kActivationGroup);
  const int64_t groups = width / kActivationGroup;
  if (groups <= activations_.group_stride) return;
  // One cache line more than a row, so that rows of a power of two do not share cache sets.
  const int64_t quant_stride = width + kCacheLine;
  const int64_t bf16_stride = width + kCacheLine / 2;
  quants_ = LargeBuffer(max_rows_ * quant_stride);
  bf16_ = LargeBuffer(max_rows_ * bf16_stride * 2);
  scales_ = LargeBuffer(max_rows_ * groups * 4);
  scaled_sums_ = LargeBuffer(max_rows_ * groups * 4);
  minus_sums_ = LargeBuffer(max_rows_ * groups * 4);
  minus_half_sums_ = LargeBuffer(max_rows_ * groups * 8);
  activations_.quants = reinterpret_cast<int8_t*>(quants_.data());
  activations_.quant_stride = quant_stride;
  activations_.bf16 = reinterpret_cast<uint16_t*>(bf16_.data());
  activations_.bf16_stride = bf16_stride;
  activations_.scales = reinterpret_cast<float*>(scales_.data());
  activations_.scaled_sums = reinterpret_cast<float*>(scaled_sums_.data());
  activations_.minus_sums = reinterpret_cast<int32_t*>(minus_sums_.data());
  activations_.minus_half_sums = reinterpret_cast<int32_t*>(minus_half_sums_.data());
  activations_.group_stride = groups;
}

bool CpuOps::RoundsToBf16(const Matrix* matrix) const {
  return PanelsOf(matrix).dtype() == DType::kBF16 && isa_.bf16_activations;
}

void CpuOps::PrepareActivations(std::span<const Matrix* const> weights, const float* x,
                                int32_t rows) {
  const int64_t cols = weights[0]->cols();
  bool quantize = false;
  bool round = false;
  for (const Matrix* matrix : weights) {
    quantize |= IsBlockFormat(PanelsOf(matrix).dtype());
    round |= RoundsToBf16(matrix);
  }
  activations_.x = x;
  activations_.x_stride = cols;
  if (!quantize && !round) return;
  const int64_t groups = activations_.group_stride;
  const int64_t grain = std::max<int64_t>(1, 16384 / cols);
  pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) {
      if (quantize) {
        isa_.quantize_row(x + r * cols, cols,
                          reinterpret_cast<int8_t*>(quants_.data()) + r * activations_.quant_stride,
                          reinterpret_cast<float*>(scales_.data()) + r * groups,
                          reinterpret_cast<float*>(scaled_sums_.data()) + r * groups,
                          reinterpret_cast<int32_t*>(minus_sums_.data()) + r * groups,
                          reinterpret_cast<int32_t*>(minus_half_sums_.data()) + 2 * r * groups);
      }
      if (round) {
        isa_.round_row_to_bf16(
            x + r * cols, cols,
            reinterpret_cast<uint16_t*>(bf16_.data()) + r * activations_.bf16_stride);
      }
    }
  });
}

void CpuOps::MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
                    std::span<float* const> outs, bool add) {
  BATON_CHECK(rows <= max_rows_, "Ops was created for fewer rows");
  if (weights.empty() || rows == 0) return;
  PrepareActivations(weights, x, rows);
  int64_t panels = 0;
  int64_t most_rows = kMaxTaskRows;
  for (const Matrix* matrix : weights) {
    panels += PanelsOf(matrix).panels();
    if (!RoundsToBf16(matrix)) continue;
    const int64_t fitting = kTaskActivationBytes / (2 * matrix->cols());
    most_rows =
        std::clamp(fitting / isa_.tile_rows * isa_.tile_rows, kLeastRowsOfABlock, most_rows);
  }
  // Row blocks of equal height, outermost, so that a block's activations stay in the cache; each
  // thread has its own where that leaves them high enough to share an expanded panel.
  int64_t row_blocks = (rows + most_rows - 1) / most_rows;
  const int64_t even_blocks = RoundUp(row_blocks, pool_.threads());
  if (rows >= even_blocks * kLeastRowsOfABlock) row_blocks = even_blocks;
  const int64_t block_rows = RoundUp((rows + row_blocks - 1) / row_blocks, isa_.tile_rows);
  row_blocks = (rows + block_rows - 1) / block_rows;  // the last may be needed no more
  const int64_t tasks = row_blocks * panels;
  const int64_t grain = rows > kFewRows ? 1 : std::max<int64_t>(1, tasks / (pool_.threads() * 8));
  const auto& multiply = rows < kFewRows ? isa_.multiply_few_rows : isa_.multiply_panel;
  pool_.ParallelFor(tasks, grain, [&](int64_t begin, int64_t end, int32_t thread) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t panel = i % panels;
      size_t w = 0;
      while (panel >= PanelsOf(weights[w]).panels()) panel -= PanelsOf(weights[w++]).panels();
      const PanelMatrix& matrix = PanelsOf(weights[w]);
      const int64_t first_column = panel * kPanelColumns;
      PanelTask task;
      task.panel = matrix.panel(panel);
      task.inputs = matrix.cols();
      task.row_begin = static_cast<int32_t>(std::min<int64_t>(i / panels * block_rows, rows));
      task.row_end = static_cast<int32_t>(std::min<int64_t>(task.row_begin + block_rows, rows));
      task.out = outs[w] + first_column;
      task.out_stride = matrix.rows();
      task.columns =
          static_cast<int32_t>(std::min<int64_t>(kPanelColumns, matrix.rows() - first_column));
      task.add = add;
      task.scratch = panel_scratch_.data() + int64_t{thread} * kPanelScratchBytes;
      multiply[static_cast<int>(matrix.dtype())](activations_, task);
    }
  });
}

}  // namespace baton::kernels
