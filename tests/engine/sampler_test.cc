#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "tests/engine/engine_testing.h"

namespace baton::engine {
namespace {

using testing::ElementsAre;

OutputToken Sample(std::vector<float> logits, const SamplingParams& params,
                   const std::vector<TokenId>& prompt = {}, const std::vector<TokenId>& output = {},
                   const std::vector<TokenId>& end_tokens = {}) {
  Sampler sampler(static_cast<int32_t>(logits.size()));
  return sampler.Sample(logits, params, prompt, output, end_tokens);
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// How often each token is drawn, over seeds.
std::vector<double> Shares(const std::vector<float>& logits, SamplingParams params,
                           int draws = 20000) {
  Sampler sampler(static_cast<int32_t>(logits.size()));
  std::vector<double> shares(logits.size());
  for (int i = 0; i < draws; ++i) {
    params.seed = static_cast<uint64_t>(i);
    std::vector<float> copy = logits;
    shares[sampler.Sample(copy, params, {}, {}, {}).token] += 1.0 / draws;
  }
  return shares;
}

std::vector<float> Logarithms(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3);
  return logits;
}

void ExpectShares(const std::vector<double>& shares, const std::vector<double>& expected) {
  ASSERT_EQ(shares.size(), expected.size());
  for (size_t i = 0; i < shares.size(); ++i) {
    // Five standard errors of 20,000 draws at most; what must not be drawn never is.
    EXPECT_NEAR(shares[i], expected[i], expected[i] == 0 ? 0 : 0.018) << "token " << i;
  }
}

TEST(Sampler, GreedyTakesTheBestAndTheLowestIdOfEquals) {
  EXPECT_EQ(Sample({1, 3, 2}, Greedy()).token, 1);
  EXPECT_EQ(Sample({1, 3, 3}, Greedy()).token, 1);
  EXPECT_EQ(Sample({-5, -5}, Greedy()).token, 0);
  EXPECT_EQ(Sample({1, 3, 2}, Greedy(), {}, {0, 0, 1}).position, 3);
}

TEST(Sampler, DrawsInProportion) {
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), {}), {0.1, 0.5, 0.15, 0.25});
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  SamplingParams params;
  params.temperature = 0.5;  // squares the odds
  ExpectShares(Shares(Logarithms({0.8, 0.2}), params), {16.0 / 17, 1.0 / 17});
  params.temperature = 2;  // their square root
  ExpectShares(Shares(Logarithms({0.8, 0.2}), params), {2.0 / 3, 1.0 / 3});
  params.temperature = 1e-30f;
  ExpectShares(Shares({1, 2, 2}, params), {0, 0.5, 0.5});
  params.temperature = 100;
  ExpectShares(Shares({1, 1, 1, 1}, params), {0.25, 0.25, 0.25, 0.25});
}

TEST(Sampler, TopKKeepsTheBest) {
  SamplingParams params;
  params.top_k = 2;
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 2.0 / 3, 0, 1.0 / 3});
  params.top_k = 1;
  ExpectShares(Shares({1, 2, 2}, params), {0, 1, 0});
  params.top_k = 99;
  ExpectShares(Shares(Logarithms({0.25, 0.75}), params), {0.25, 0.75});
}

TEST(Sampler, TopPKeepsTheFewestThatMakeUpP) {
  SamplingParams params;
  params.top_p = 0.7f;
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 2.0 / 3, 0, 1.0 / 3});
  params.top_p = 0.8f;  // 0.5 + 0.25 falls short
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params),
               {0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9});
  params.top_p = 1e-6f;
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 1, 0, 0});
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  SamplingParams params;
  params.top_k = 3;     // of 0.9: 0.5, 0.25, 0.15
  params.top_p = 0.8f;  // of 0.9: 0.72; 0.5 + 0.25 suffices
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 2.0 / 3, 0, 1.0 / 3});
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  SamplingParams params;
  params.min_p = 0.4f;  // 0.2 and above
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 2.0 / 3, 0, 1.0 / 3});
  params.min_p = 1;
  ExpectShares(Shares(Logarithms({0.1, 0.5, 0.15, 0.25}), params), {0, 1, 0, 0});
}

TEST(Sampler, TopPOverAWholeVocabularyAgreesWithSorting) {
  const uint32_t seed = 5;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(20000);
  for (float& logit : logits) logit = normal(random);
  double total = 0;
  std::vector<std::pair<double, TokenId>> sorted;
  for (size_t i = 0; i < logits.size(); ++i) {
    sorted.emplace_back(std::exp(double{logits[i]}), static_cast<TokenId>(i));
    total += sorted.back().first;
  }
  std::ranges::sort(sorted, std::greater());
  std::map<TokenId, double> nucleus;
  double mass = 0;
  for (size_t i = 0; mass < 0.9 * total; ++i) {
    nucleus[sorted[i].second] = sorted[i].first;
    mass += sorted[i].first;
  }
  SamplingParams params;
  params.top_p = 0.9f;
  Sampler sampler(static_cast<int32_t>(logits.size()));
  double best_share = 0;
  for (uint64_t draw = 0; draw < 2000; ++draw) {
    params.seed = draw;
    std::vector<float> copy = logits;
    const TokenId token = sampler.Sample(copy, params, {}, {}, {}).token;
    ASSERT_TRUE(nucleus.contains(token)) << token;
    if (token == sorted[0].second) best_share += 1.0 / 2000;
  }
  EXPECT_NEAR(best_share, sorted[0].first / mass, 0.05);
}

TEST(Sampler, ReplaysBySeedAndPositionAlone) {
  const std::vector<float> logits(1000, 1.0f);
  Sampler used(1000);
  SamplingParams params;
  params.seed = 77;
  std::vector<TokenId> first, again;
  for (int i = 0; i < 50; ++i) {
    std::vector<float> copy = logits;
    first.push_back(used.Sample(copy, params, {}, first, {}).token);
  }
  std::vector<float> copy = logits;  // another prompt and an unrelated draw in between
  used.Sample(copy, params, std::vector<TokenId>{1, 2, 3}, {}, {});
  for (int i = 0; i < 50; ++i) {
    again.push_back(Sample(logits, params, {9, 9}, again).token);
  }
  EXPECT_EQ(first, again);
  params.seed = 78;
  EXPECT_NE(Sample(logits, params).token, first[0]);
  // The same on every machine: a changed generator or exponential shows here.
  EXPECT_THAT(std::vector(first.begin(), first.begin() + 5), ElementsAre(206, 132, 104, 14, 995));
}

TEST(Sampler, LogitBiasMovesTokens) {
  SamplingParams params = Greedy();
  params.logit_bias = {{0, 5.0f}, {1, -100.0f}};
  EXPECT_EQ(Sample({0, 4, 3}, params).token, 0);
}

TEST(Sampler, RepetitionPenaltyHitsPromptAndOutputOnce) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  params.logprobs = 3;
  const OutputToken token = Sample({8, -1, 3}, params, {0, 0, 1}, {0});
  // 8 / 2 = 4, -1 * 2 = -2, 3: differences survive the log-softmax.
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_THAT(token.top[0].logprob - token.top[1].logprob, testing::FloatNear(1, 1e-5));
  EXPECT_THAT(token.top[0].logprob - token.top[2].logprob, testing::FloatNear(6, 1e-5));
}

TEST(Sampler, PresenceAndFrequencyCountOutputOnly) {
  SamplingParams params = Greedy();
  params.presence_penalty = 1;
  params.frequency_penalty = 0.5;
  params.logprobs = 3;
  const OutputToken token = Sample({8, 7.75, 7.5}, params, {2, 2, 2}, {0, 1, 0});
  // 8 - 1 - 2 * 0.5 = 6, 7.75 - 1 - 0.5 = 6.25, 7.5
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_EQ(token.token, 2);
  EXPECT_EQ(token.top[1].token, 1);
  EXPECT_NEAR(token.top[0].logprob - token.top[1].logprob, 1.25, 1e-5);
  EXPECT_NEAR(token.top[0].logprob - token.top[2].logprob, 1.5, 1e-5);
}

TEST(Sampler, ScratchMemoryIsCleanForTheNextCall) {
  Sampler sampler(3);
  SamplingParams penalised = Greedy();
  penalised.frequency_penalty = 2;
  std::vector<float> logits = {3, 2, 1};
  EXPECT_EQ(sampler.Sample(logits, penalised, {}, std::vector<TokenId>{0, 1}, {}).token, 0);
  logits = {3, 2, 1};
  EXPECT_EQ(sampler.Sample(logits, penalised, {}, {}, {}).token, 0);
}

TEST(Sampler, EndTokensAreMaskedBeforeMinTokens) {
  SamplingParams params = Greedy();
  params.min_tokens = 2;
  params.stop_token_ids = {1};
  const std::vector<float> logits = {9, 8, 7};
  EXPECT_EQ(Sample(logits, params, {}, {}, {0}).token, 2);
  EXPECT_EQ(Sample(logits, params, {}, {2}, {0}).token, 2);
  EXPECT_EQ(Sample(logits, params, {}, {2, 2}, {0}).token, 0);
  params.ignore_eos = true;
  EXPECT_EQ(Sample(logits, params, {}, {}, {0}).token, 0);
}

TEST(Sampler, OnlyAllowedTokensAreLeft) {
  SamplingParams params = Greedy();
  params.allowed_token_ids = {3, 1, 3};
  params.logprobs = 5;
  const OutputToken token = Sample({9, 2, 8, 1}, params, {}, {}, {0});
  EXPECT_EQ(token.token, 1) << "nor an end token, which is not among them";
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_NEAR(token.top[0].logprob - token.top[1].logprob, 1, 1e-5);
  params.min_tokens = 2;
  params.stop_token_ids = {1};
  EXPECT_EQ(Sample({9, 2, 8, 1}, params).token, 3);
  params.allowed_token_ids = {1};
  EXPECT_EQ(Sample({9, 2, 8, 1}, params).token, 1) << "min_tokens would leave nothing";
}

TEST(Sampler, BadWordsAreNotCompleted) {
  SamplingParams params = Greedy();
  params.bad_words = {{3}, {0, 1, 2}};
  const std::vector<float> logits = {1, 2, 3, 4};
  EXPECT_EQ(Sample(logits, params).token, 2);
  EXPECT_EQ(Sample(logits, params, {}, {1, 0, 1}).token, 1);
  EXPECT_EQ(Sample(logits, params, {}, {0, 1, 1}).token, 2);
  EXPECT_EQ(Sample(logits, params, {0, 1}, {}).token, 2) << "what is in the prompt begins no word";
  EXPECT_EQ(Sample(logits, params, {0}, {1}).token, 2);

  // With what else masks: the same token twice comes back as it was.
  params.stop_token_ids = {3};
  params.min_tokens = 9;
  params.allowed_token_ids = {3};
  params.logprobs = 1;
  const OutputToken only = Sample(logits, params);
  EXPECT_EQ(only.token, 3);
  EXPECT_NEAR(only.logprob, 0, 1e-6);
}

TEST(Sampler, LogprobsAreTakenBeforeTemperature) {
  SamplingParams params;
  params.temperature = 0.1f;
  params.top_k = 1;
  params.logprobs = 2;
  const OutputToken token = Sample(Logarithms({0.1, 0.5, 0.15, 0.25}), params);
  EXPECT_EQ(token.token, 1);
  EXPECT_NEAR(token.logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].token, 1);
  EXPECT_EQ(token.top[1].token, 3);
  EXPECT_NEAR(token.top[1].logprob, std::log(0.25), 1e-6);
  params.logprobs = 0;
  EXPECT_TRUE(Sample(Logarithms({0.5, 0.5}), params).top.empty());
  EXPECT_NEAR(Sample(Logarithms({0.5, 0.5}), params).logprob, std::log(0.5), 1e-6);
}

TEST(Sampler, OddLogitsNeitherCrashNorWin) {
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.logprobs = 5;
    EXPECT_EQ(Sample({kNan, -kInfinity, 2, kNan}, params).token, 2);
    EXPECT_EQ(Sample({kNan, -kInfinity, 2, kNan}, params).top.size(), 1u);
    EXPECT_EQ(Sample({1, kInfinity, kNan}, params).token, 1);
    const OutputToken nothing_left = Sample({kNan, -kInfinity, kNan}, params);
    EXPECT_EQ(nothing_left.token, 0);
    EXPECT_TRUE(std::isfinite(nothing_left.logprob));
    params.top_p = 0.5f;
    params.min_p = 0.5f;
    EXPECT_EQ(Sample({kNan, -kInfinity, 2, kNan}, params).token, 2);
  }
}

// Allows the tokens of `allowed`; ends as it is told.
class FixedConstraint final : public TokenConstraint {
 public:
  FixedConstraint(uint64_t allowed, bool may_end) : allowed_{allowed}, may_end_(may_end) {}
  bool Ready(std::span<const TokenId>) override { return true; }
  Next After(std::span<const TokenId>) override { return {allowed_, {}, may_end_, false}; }

 private:
  std::vector<uint64_t> allowed_;
  bool may_end_;
};

TEST(Sampler, AConstraintLeavesWhatItAllowsAndEndsWhereItIsSatisfied) {
  const auto best = [](uint64_t allowed, bool may_end, SamplingParams params) {
    FixedConstraint constraint(allowed, may_end);
    std::vector<float> logits = {5, 1, 4, 2, 3};
    const std::vector<TokenId> end_tokens = {0};
    Sampler sampler(5);
    return sampler.Sample(logits, params, {}, {}, end_tokens, &constraint);
  };
  EXPECT_EQ(best(0b01010, false, Greedy()).token, 3);
  EXPECT_EQ(best(0b01010, true, Greedy()).token, 0) << "an end token";
  SamplingParams ignoring = Greedy();
  ignoring.ignore_eos = true;
  EXPECT_EQ(best(0b01010, true, ignoring).token, 3);
  SamplingParams longer = Greedy();
  longer.min_tokens = 5;
  longer.max_tokens = 9;
  EXPECT_EQ(best(0b01010, true, longer).token, 3);
  EXPECT_EQ(best(0, false, Greedy()).token, 0) << "nothing else is left";

  SamplingParams sampled;
  sampled.logprobs = 5;
  for (sampled.seed = 0; sampled.seed < 200; ++sampled.seed) {
    const OutputToken token = best(0b01010, false, sampled);
    EXPECT_TRUE(token.token == 1 || token.token == 3);
    ASSERT_EQ(token.top.size(), 2u);
    EXPECT_NEAR(std::exp(token.top[0].logprob) + std::exp(token.top[1].logprob), 1, 1e-5);
  }
}

}  // namespace
}  // namespace baton::engine
