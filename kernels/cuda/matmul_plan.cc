#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

MatMulPlan PlanMatMul(int32_t weight_rows, int32_t padded_cols, int32_t rows,
                      int32_t multiprocessors) {
  MatMulPlan plan;
  if (rows > kMatMulTiles[static_cast<int>(MatMulTile::kSome)].rows) {
    plan.tile = MatMulTile::kMany;
  } else if (rows > kMatMulFewRows) {
    plan.tile = MatMulTile::kSome;
  }
  const MatMulTileSize& size = kMatMulTiles[static_cast<int>(plan.tile)];
  plan.row_tiles = (rows + size.rows - 1) / size.rows;
  plan.column_tiles = (weight_rows + size.weight_rows - 1) / size.weight_rows;
  const int32_t steps = padded_cols / kWeightCols;
  plan.segment_cols = (steps + kMatMulSegments - 1) / kMatMulSegments * kWeightCols;
  plan.segments = (padded_cols + plan.segment_cols - 1) / plan.segment_cols;
  const int64_t tiles = int64_t{plan.row_tiles} * plan.column_tiles;
  plan.split = plan.tile != MatMulTile::kFew && plan.segments > 1 && tiles < 2 * multiprocessors;
  if (plan.split) plan.partial_floats = int64_t{plan.segments} * rows * weight_rows;
  return plan;
}

}  // namespace baton::kernels::cuda
