#include "engine/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

using testing::HasSubstr;

TEST(Perplexity, OfTheDemoModelIsThatOfNumPy) {
  std::ifstream golden("tests/golden/engine/nll.txt");
  std::string word;
  int32_t window = 0;
  double expected = 0;
  ASSERT_TRUE(golden >> word >> window >> expected);
  const std::vector<TokenId> tokens = ReadIds("tests/golden/engine/alice.ids");
  ASSERT_EQ(tokens.size(), 2000u);
  const auto engine = LoadEngine(*OpenDemoModel(), {});
  const auto result = Perplexity(&engine->model(), &engine->executor().pool(), tokens, window);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->scored_tokens, 2000 - 4);
  std::printf("[ MEASURED ] mean NLL %.5f, NumPy %.5f\n", result->mean_nll, expected);
  EXPECT_NEAR(result->mean_nll, expected, 0.005 * expected);
}

class PerplexityTest : public testing::Test {
 protected:
  double Nll(std::span<const TokenId> tokens, int32_t window) {
    return Perplexity(&engine_->model(), &engine_->executor().pool(), tokens, window)->mean_nll;
  }
  std::unique_ptr<LocalEngine> engine_ = LoadEngine(*OpenTiny({}), {.threads = 1});
  std::vector<TokenId> tokens_ = RandomTokens(101, 320, 1);
};

TEST_F(PerplexityTest, IsTheLogSoftmaxOfEachNextToken) {
  const std::vector<float> logits = AllLogits(*engine_, tokens_, 64);
  double sum = 0;
  for (size_t i = 0; i + 1 < tokens_.size(); ++i) {
    double total = 0;
    for (size_t token = 0; token < 320; ++token) total += std::exp(double{logits[i * 320 + token]});
    sum += std::log(total) - logits[i * 320 + tokens_[i + 1]];
  }
  EXPECT_NEAR(Nll(tokens_, 256), sum / 100, 1e-9);
}

TEST_F(PerplexityTest, WindowsAreSeparateAndTheLastMayBeShort) {
  // 40 + 40 + 21 tokens: 39 + 39 + 20 are scored, each window from an empty context.
  const std::span<const TokenId> all = tokens_;
  const double expected = (39 * Nll(all.first(40), 40) + 39 * Nll(all.subspan(40, 40), 40) +
                           20 * Nll(all.subspan(80), 40)) /
                          98;
  std::vector<double> progress;
  const auto result = Perplexity(&engine_->model(), &engine_->executor().pool(), all, 40,
                                 [&](double share) { progress.push_back(share); });
  EXPECT_EQ(result->scored_tokens, 98);
  EXPECT_NEAR(result->mean_nll, expected, 1e-12);
  EXPECT_EQ(progress.size(), 3u);
  EXPECT_EQ(progress.back(), 1);
  // 50 + 50 + 1: a single token has no successor.
  EXPECT_EQ(Perplexity(&engine_->model(), &engine_->executor().pool(), all, 50)->scored_tokens, 98);
  EXPECT_EQ(engine_->executor().pool().counts().held, 0);
}

TEST_F(PerplexityTest, RefusesClearly) {
  const auto why = [&](std::span<const TokenId> tokens, int32_t window) {
    return std::string(Perplexity(&engine_->model(), &engine_->executor().pool(), tokens, window)
                           .status()
                           .message());
  };
  EXPECT_THAT(why(tokens_, 1), HasSubstr("a window of 1 tokens is not in [2, 256]"));
  EXPECT_THAT(why(tokens_, 257), HasSubstr("a window of 257 tokens"));
  EXPECT_THAT(why(std::span(tokens_).first(1), 10), HasSubstr("1 tokens cannot be scored"));
  tokens_[3] = 320;
  EXPECT_THAT(why(tokens_, 10), HasSubstr("token 3 is 320"));
}

}  // namespace
}  // namespace baton::engine
