#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

class ElementwiseTest : public testing::TestWithParam<CpuIsa> {};

// Bound: 2e-6 of the largest output, for rounding in float.
TEST_P(ElementwiseTest, RmsNormAgreesWithReference) {
  std::mt19937 random = TestRandom();
  const auto reference = CreateReferenceOps();
  const auto cpu = CpuBackend(GetParam(), 2);
  for (const int32_t cols : {1, 15, 16, 17, 63, 64, 65, 576, 2050}) {
    for (const int32_t rows : {1, 3, 100}) {
      const std::vector<float> x = RandomFloats(random, rows * cols);
      const std::vector<float> weight = RandomFloats(random, cols);
      std::vector<float> expected(x.size());
      std::vector<float> actual(x.size());
      reference->RmsNorm(x.data(), weight.data(), rows, cols, 1e-5f, expected.data());
      cpu->RmsNorm(x.data(), weight.data(), rows, cols, 1e-5f, actual.data());
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], 2e-6 * (1 + std::abs(expected[i])));
      }
      std::vector<float> in_place = x;
      cpu->RmsNorm(in_place.data(), weight.data(), rows, cols, 1e-5f, in_place.data());
      EXPECT_TRUE(SameBits(in_place, actual));
      std::vector<float> last_row(cols);
      cpu->RmsNorm(&x[x.size() - cols], weight.data(), 1, cols, 1e-5f, last_row.data());
      EXPECT_TRUE(SameBits(last_row, std::span(actual).last(cols)));
    }
  }
}

// Bound: 1e-6 relative, and 1e-36 where exp(-gate) leaves float.
TEST_P(ElementwiseTest, SwiGluAgreesWithReference) {
  std::mt19937 random = TestRandom();
  const auto reference = CreateReferenceOps();
  const auto cpu = CpuBackend(GetParam(), 2);
  for (const int32_t cols : {1, 15, 17, 1536}) {
    for (const int32_t rows : {1, 3, 40}) {
      std::vector<float> gate = RandomFloats(random, rows * cols, 5);
      const std::vector<float> up = RandomFloats(random, rows * cols);
      const float extremes[] = {0.0f, -0.0f, 88.0f, -88.0f, -200.0f, 200.0f, 1e30f, -1e30f};
      for (size_t i = 0; i < gate.size() && i < std::size(extremes); ++i) gate[i] = extremes[i];
      std::vector<float> expected(gate.size());
      std::vector<float> actual(gate.size());
      reference->SwiGlu(gate.data(), up.data(), rows, cols, expected.data());
      cpu->SwiGlu(gate.data(), up.data(), rows, cols, actual.data());
      for (size_t i = 0; i < gate.size(); ++i) {
        // -1e30 * exp(-1e30) is 0; held at exp's limit it is 1e30 / 2^126, about 1e-8.
        const double slack = std::abs(gate[i]) > 87 ? std::abs(gate[i]) * 0x1p-125 : 1e-36;
        ASSERT_NEAR(actual[i], expected[i], 1e-6 * std::abs(expected[i]) + slack * 4) << gate[i];
      }
      std::vector<float> in_place = gate;
      cpu->SwiGlu(in_place.data(), up.data(), rows, cols, in_place.data());
      EXPECT_TRUE(SameBits(in_place, actual));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ElementwiseTest, testing::ValuesIn(TestIsas()),
                         [](const auto& param) { return IsaName(param.param); });

}  // namespace
}  // namespace baton::kernels
