#include "kernels/cuda/cuda_matrix.h"

#include <gtest/gtest.h>

#include "tests/kernels/test_support.h"

namespace baton::kernels::cuda {
namespace {

TEST(PackWeightsTest, PadsWithZeros) {
  std::mt19937 random = TestRandom();
  for (const DType dtype : kAllDTypes) {
    const TestMatrix matrix = RandomMatrix(random, dtype, 65, 256);
    const auto packed = PackWeights(matrix.host);
    ASSERT_TRUE(packed.ok()) << packed.status();
    EXPECT_EQ(packed->shape.rows, 65);
    EXPECT_EQ(packed->shape.cols, 256);
    EXPECT_EQ(packed->shape.padded_rows, 128);
    EXPECT_EQ(packed->shape.padded_cols, 256);
    for (size_t i = packed->values.size() / 128 * 65; i < packed->values.size(); ++i) {
      ASSERT_EQ(packed->values[i], std::byte{0}) << Traits(dtype).name;
    }
    for (size_t i = packed->scales.size() / 128 * 65; i < packed->scales.size(); ++i) {
      ASSERT_EQ(packed->scales[i].x, 0);
      ASSERT_EQ(packed->scales[i].y, 0);
    }
  }
}

TEST(PackWeightsTest, RefusesWrongSizes) {
  const std::vector<std::byte> bytes(10);
  EXPECT_FALSE(PackWeights({DType::kF32, 2, 2, bytes}).ok());
  EXPECT_FALSE(PackWeights({DType::kQ4_0, 1, 33, bytes}).ok());
}

}  // namespace
}  // namespace baton::kernels::cuda
