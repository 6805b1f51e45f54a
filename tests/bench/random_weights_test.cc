#include "bench/random_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/dequantize.h"

namespace baton::bench {
namespace {

class RandomWeightsTest : public testing::TestWithParam<DType> {};

// One weight that is not finite would make every product that it is in worthless.
TEST_P(RandomWeightsTest, AreSoundAndDiffer) {
  constexpr int64_t kRows = 40, kCols = 1280;
  const std::vector<std::byte> bytes = RandomWeights(GetParam(), kRows, kCols, 1);
  ASSERT_EQ(std::ssize(bytes), kRows * DTypeBytes(GetParam(), kCols));
  std::vector<float> values(kRows * kCols);
  kernels::Dequantize(GetParam(), bytes, values);
  for (const float value : values) ASSERT_TRUE(std::isfinite(value));
  const auto [least, most] = std::ranges::minmax(values);
  EXPECT_LT(least, 0);
  EXPECT_GT(most, 0);
  EXPECT_EQ(bytes, RandomWeights(GetParam(), kRows, kCols, 1));
  EXPECT_NE(bytes, RandomWeights(GetParam(), kRows, kCols, 2));
}

INSTANTIATE_TEST_SUITE_P(DTypes, RandomWeightsTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& dtype) { return std::string(Traits(dtype.param).name); });

TEST(RandomActivationsTest, FillTheirRange) {
  const std::vector<float> values = RandomActivations(10001, 1);
  const auto [least, most] = std::ranges::minmax(values);
  EXPECT_GE(least, -1);
  EXPECT_LT(least, -0.99f);
  EXPECT_LT(most, 1);
  EXPECT_GT(most, 0.99f);
}

}  // namespace
}  // namespace baton::bench
