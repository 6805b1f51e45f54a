#include "kernels/cuda/step_tables.h"

#include <gtest/gtest.h>

#include <limits>

namespace baton::kernels::cuda {
namespace {

TEST(StepTablesTest, PlacesRowsAndCutsQueries) {
  const int32_t unused = std::numeric_limits<int32_t>::max();
  const int32_t first[] = {7, 9, unused};
  const int32_t second[] = {4, unused};
  const SequenceRows sequences[] = {{first, 14, 0, 6}, {second, 2, 6, 1}};
  StepTables tables;
  BuildStepTables(sequences, 16, 3, tables);
  EXPECT_EQ(tables.tables, (std::vector<int32_t>{7, 9, 4}));
  ASSERT_EQ(tables.places.size(), 7u);
  EXPECT_EQ(tables.places[5].position, 19);
  EXPECT_EQ(tables.places[5].table, 0);
  EXPECT_EQ(tables.places[6].position, 2);
  EXPECT_EQ(tables.places[6].table, 2);
  EXPECT_EQ(tables.longest, 20);
  ASSERT_EQ(tables.tiles.size(), 3u);  // 18 queries, and 3
  EXPECT_EQ(tables.tiles[0].count, 16);
  EXPECT_EQ(tables.tiles[1].first, 16);
  EXPECT_EQ(tables.tiles[1].count, 2);
  EXPECT_EQ(tables.tiles[2].first_row, 6);
  EXPECT_EQ(tables.tiles[2].count, 3);
}

// Few queries of long sequences are split; many queries, or softmaxes that need much memory, not.
TEST(AttentionPlanTest, SplitsWhereWarpsAreFew) {
  EXPECT_TRUE(SplitsAttention(128, 8, 4, 1 << 20, 132));
  EXPECT_FALSE(SplitsAttention(128, 8, 1, 1 << 20, 132)) << "one segment";
  EXPECT_FALSE(SplitsAttention(264, 8, 4, 1 << 20, 132)) << "16 warps for each multiprocessor";
  EXPECT_TRUE(SplitsAttention(263, 8, 4, 64 << 20, 132));
  EXPECT_FALSE(SplitsAttention(263, 8, 4, (64 << 20) + 1, 132)) << "memory";
  EXPECT_FALSE(SplitsAttention(1, 1, 65'536, 1 << 20, 132)) << "more than a grid's depth";
}

// Segments hang on the columns alone, and cover them.
TEST(MatMulPlanTest, SegmentsAreOfTheColumns) {
  for (const int32_t cols : {64, 128, 576, 1536, 4096, 14336}) {
    const MatMulPlan one = PlanMatMul(4096, cols, 17, 132);
    EXPECT_LE(one.segments, kMatMulSegments);
    EXPECT_GE(one.segments * one.segment_cols, cols);
    EXPECT_LT((one.segments - 1) * one.segment_cols, cols);
    for (const int32_t rows : {1, 16, 17, 512}) {
      const MatMulPlan plan = PlanMatMul(128256, cols, rows, 132);
      EXPECT_EQ(plan.segment_cols, one.segment_cols);
      EXPECT_EQ(plan.segments, one.segments);
      EXPECT_GE(plan.row_tiles * kMatMulTiles[static_cast<int>(plan.tile)].rows, rows);
      EXPECT_FALSE(plan.split) << "1,002 tiles of 128 weight rows";
    }
    EXPECT_EQ(one.split, cols > 64);
  }
}

}  // namespace
}  // namespace baton::kernels::cuda
