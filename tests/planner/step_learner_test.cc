#include "planner/step_learner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <random>

namespace baton::planner {
namespace {

// A device whose steps are as the learner supposes, but for noise.
struct Device {
  double fixed_s = 2e-3, token_s = 30e-6, pair_s = 4e-9, sequence_s = 50e-6, context_s = 80e-9;
  double Seconds(const StepSums& sums) const {
    return fixed_s * sums.steps - 1.5e-3 * sums.prompt_steps + token_s * sums.prompt_tokens +
           pair_s * sums.prompt_pairs + sequence_s * sums.sequences +
           context_s * sums.context_tokens;
  }
};

StepSums RandomReport(std::mt19937_64& random, bool prefill) {
  const auto uniform = [&](double from, double to) {
    return from + (to - from) * static_cast<double>(random() >> 11) * 0x1p-53;
  };
  StepSums sums{.steps = std::floor(uniform(1, 50))};
  if (prefill) {
    sums.prompt_steps = sums.steps;
    sums.prompt_tokens = sums.steps * uniform(20, 256);
    sums.prompt_pairs = sums.prompt_tokens * uniform(100, 4000);
  } else {
    sums.sequences = sums.steps * uniform(1, 32);
    sums.context_tokens = sums.sequences * uniform(200, 3000);
  }
  return sums;
}

void Teach(StepLearner* learner, const Device& device, int reports, double noise, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < reports; ++i) {
    StepSums sums = RandomReport(random, i % 2 == 0);
    const double coin = random() % 2 == 0 ? 1 : -1;
    sums.seconds = device.Seconds(sums) + coin * noise * std::sqrt(sums.steps);
    learner->Add(sums);
  }
}

StepLoad Decode(double batch, double context) {
  return {.batch = batch, .context_tokens = batch * context};
}

TEST(StepLearner, FindsTheCoefficientsWithoutNoise) {
  StepLearner learner;
  const Device device;
  Teach(&learner, device, 100, 0, 3);
  const PromptRange prompt{.tokens = 200, .before_tokens = 1000};
  for (const StepLoad& load :
       {Decode(1, 300), Decode(24, 2000), StepLoad{.prompts = {&prompt, 1}}}) {
    const double exact_s = device.Seconds(SumsOf(load));
    EXPECT_NEAR(learner.Seconds(load), exact_s, 0.01 * exact_s);
    EXPECT_LT(learner.Interval(load), 0.05 * exact_s);
  }
}

TEST(StepLearner, IntervalsHoldNineteenOfTwenty) {
  const Device device;
  const double noise = 0.3e-3;
  int within = 0;
  const int tries = 200;
  std::mt19937_64 random(17);
  StepLearner learner;
  Teach(&learner, device, 300, noise, 4);
  for (int i = 0; i < tries; ++i) {
    StepSums sums = RandomReport(random, false);
    sums.context_tokens /= sums.steps;
    sums.sequences /= sums.steps;
    const StepLoad load{.batch = sums.sequences, .context_tokens = sums.context_tokens};
    std::normal_distribution<double> normal(0, noise);
    const double seconds = device.Seconds(SumsOf(load)) + normal(random);
    within += std::abs(seconds - learner.Seconds(load)) <= learner.Interval(load) ? 1 : 0;
  }
  EXPECT_GE(within, tries * 0.88);
  EXPECT_LE(learner.Interval(Decode(8, 500)), 4 * noise);
}

TEST(StepLearner, ForgetsASpeedThatIsNoLonger) {
  StepLearner learner;
  Device device;
  Teach(&learner, device, 2000, 0.1e-3, 5);
  device.fixed_s *= 2;
  device.sequence_s *= 2;
  device.context_s *= 2;
  device.token_s *= 2;
  device.pair_s *= 2;
  Teach(&learner, device, 2500, 0.1e-3, 6);
  const double exact_s = device.Seconds(SumsOf(Decode(16, 1000)));
  EXPECT_NEAR(learner.Seconds(Decode(16, 1000)), exact_s, 0.05 * exact_s);
}

TEST(StepLearner, ForgetsNothingThatItNoLongerSees) {
  StepLearner learner;
  const Device device;
  Teach(&learner, device, 200, 0.05e-3, 7);
  for (int i = 0; i < 20'000; ++i) {  // an idle fleet with one sequence
    StepSums sums{.steps = 10, .sequences = 10, .context_tokens = 5000};
    sums.seconds = device.Seconds(sums);
    learner.Add(sums);
  }
  const double exact_s = device.Seconds(SumsOf(Decode(16, 1000)));
  EXPECT_NEAR(learner.Seconds(Decode(16, 1000)), exact_s, 0.2 * exact_s);
  EXPECT_TRUE(std::isfinite(learner.Interval(Decode(16, 1000))));
}

TEST(StepLearner, IgnoresWhatNoStepsAre) {
  StepLearner learner;
  for (const StepSums& sums :
       {StepSums{}, StepSums{.steps = 1, .seconds = NAN}, StepSums{.steps = -1, .seconds = 1},
        StepSums{.steps = 1, .prompt_steps = 2, .seconds = 1},
        StepSums{.steps = 1, .seconds = 1, .prompt_tokens = -5},
        StepSums{.steps = 1, .seconds = 1, .context_tokens = INFINITY}}) {
    learner.Add(sums);
  }
  EXPECT_EQ(learner.reports(), 0);
  EXPECT_GT(learner.Seconds(Decode(1, 1)), 0);
}

}  // namespace
}  // namespace baton::planner
