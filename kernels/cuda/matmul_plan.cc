#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

MatMulPlan PlanMatMul(int32_t weight_rows, int32_t padded_cols, int32_t rows,
                      int32_t multiprocessors) {
  MatMulPlan plan;
  plan.tile_rows = rows <= kMatMulFewRows ? kMatMulFewRows : kMatMulManyRows;
  plan.row_tiles = (rows + plan.tile_rows - 1) / plan.tile_rows;
  plan.column_tiles = (weight_rows + kWeightRows - 1) / kWeightRows;
  const int32_t steps = padded_cols / kWeightCols;
  plan.segment_cols = (steps + kMatMulSegments - 1) / kMatMulSegments * kWeightCols;
  plan.segments = (padded_cols + plan.segment_cols - 1) / plan.segment_cols;
  const int64_t tiles = int64_t{plan.row_tiles} * plan.column_tiles;
  plan.split = plan.segments > 1 && tiles < 2 * multiprocessors;
  if (plan.split) plan.partial_floats = int64_t{plan.segments} * rows * weight_rows;
  return plan;
}

}  // namespace baton::kernels::cuda
