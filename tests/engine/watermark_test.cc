#include "engine/watermark.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "engine/sampler.h"

namespace baton::engine {
namespace {

constexpr int32_t kVocab = 1000;

std::vector<TokenId> Generate(bool watermark, uint64_t seed) {
  Sampler sampler(kVocab);
  SamplingParams params;
  params.seed = seed;
  params.watermark = watermark;
  params.max_tokens = 400;
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal(0, 2);
  const std::vector<TokenId> prompt = {1, 2, 3};
  std::vector<TokenId> output;
  for (int i = 0; i < 300; ++i) {
    std::vector<float> logits(kVocab);
    for (float& logit : logits) logit = normal(random);
    output.push_back(sampler.Sample(logits, params, prompt, output, {}).token);
  }
  return output;
}

TEST(WatermarkTest, IsFoundWhereItIsAndNotWhereItIsNot) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    EXPECT_GT(WatermarkScore(Generate(true, seed)), 6) << seed;
    EXPECT_LT(WatermarkScore(Generate(false, seed)), 4) << seed;
  }
}

TEST(WatermarkTest, HalfOfTheVocabularyAnotherAfterEachToken) {
  int equal = 0;
  for (TokenId previous = 0; previous < 50; ++previous) {
    int marked = 0;
    for (TokenId token = 0; token < kVocab; ++token) {
      marked += IsWatermarked(previous, token);
      equal += IsWatermarked(previous, token) == IsWatermarked(previous + 1, token);
    }
    EXPECT_NEAR(marked, kVocab / 2, 80) << previous;
  }
  EXPECT_NEAR(equal, 50 * kVocab / 2, 800);
}

TEST(WatermarkTest, RaisesExactlyTheMarkedOnes) {
  std::vector<float> logits(kVocab, 1.0f);
  ApplyWatermark(7, logits);
  for (TokenId token = 0; token < kVocab; ++token) {
    EXPECT_EQ(logits[static_cast<size_t>(token)],
              IsWatermarked(7, token) ? 1.0f + kWatermarkDelta : 1.0f);
  }
}

}  // namespace
}  // namespace baton::engine
