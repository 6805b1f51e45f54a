#include "engine/softmax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/engine/engine_testing.h"

namespace baton::engine {
namespace {

BestLogit Best(const std::vector<float>& logits) { return FindBest(logits); }

TEST(FindBest, TakesTheFirstOfEqualsAndPassesOverNan) {
  EXPECT_EQ(Best({1, 3, 3, 2}).index, 1);
  EXPECT_EQ(Best({kNan, -4, kNan, -5, kNan}).index, 1);
  EXPECT_EQ(Best({0, 0, 0, 0, kInfinity}).index, 4);
  EXPECT_EQ(Best({kNan, -kInfinity}).value, -kInfinity);
  EXPECT_EQ(Best({kNan, -kInfinity}).index, 0);
  for (size_t size = 1; size < 20; ++size) {
    for (size_t best = 0; best < size; ++best) {
      std::vector<float> logits(size, -1);
      logits[best] = -0.5f;
      ASSERT_EQ(FindBest(logits).index, static_cast<int32_t>(best)) << size;
    }
  }
}

TEST(SoftmaxWeights, IsTheExponential) {
  const uint32_t seed = 9;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-80, 0);
  std::vector<float> logits(100001), weights(logits.size());
  for (float& logit : logits) logit = uniform(random);
  logits[5] = 0;
  const double total = SoftmaxWeights(logits, 0, 1, weights);
  double expected_total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = std::exp(double{logits[i]});
    expected_total += expected;
    ASSERT_NEAR(weights[i] / expected, 1, 1e-6) << logits[i];
  }
  EXPECT_NEAR(total / expected_total, 1, 1e-6);
  EXPECT_EQ(weights[5], 1);
}

TEST(SoftmaxWeights, TemperatureDividesAndOddValuesWeighNothing) {
  const std::vector<float> logits = {5, 3, kNan, -kInfinity, -1e30f, 5};
  std::vector<float> weights(logits.size());
  EXPECT_NEAR(SoftmaxWeights(logits, 5, 2, weights), 2 + std::exp(-1.0), 1e-6);
  EXPECT_THAT(weights,
              testing::ElementsAre(1, testing::FloatNear(std::exp(-1.0f), 1e-6f), 0, 0, 0, 1));
  EXPECT_EQ(SoftmaxWeights(logits, 5, 1e-40f, weights), 2);
}

}  // namespace
}  // namespace baton::engine
