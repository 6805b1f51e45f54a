#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/panel_format.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/weight_arena.h"
#include "kernels/ops.h"

namespace baton::kernels {

// A weight matrix in panels (panel_format.h). Immutable after construction.
class PanelMatrix final : public Matrix {
 public:
  // `host` has passed CheckHostMatrix. The panels lie in `arena`.
  PanelMatrix(const HostMatrix& host, ThreadPool& pool, WeightArena& arena);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return panels() * panel_bytes_; }

  DType dtype() const { return dtype_; }
  int64_t panels() const { return (rows_ + kPanelColumns - 1) / kPanelColumns; }
  int64_t panel_bytes() const { return panel_bytes_; }
  const uint8_t* panel(int64_t index) const { return memory_ + index * panel_bytes_; }

  // The values of one row, exactly as Dequantize gives them. out: [cols()]
  void DecodeRow(int64_t row, float* out) const;

 private:
  const DType dtype_;
  const int64_t rows_;
  const int64_t cols_;
  const int64_t panel_bytes_;
  uint8_t* const memory_;  // zero where the last panel has no columns
};

}  // namespace baton::kernels
