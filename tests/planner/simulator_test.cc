#include "planner/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "planner/pools.h"

namespace baton::planner {
namespace {

using testing::HasSubstr;

Deployment Chat() {
  return {.model = *KnownModelFacts("llama-3-8b"), .hardware = *KnownHardwareFacts("h100")};
}

// Prompts of one length and answers of one token: nothing but prefill.
SimulationResult PrefillOnly(int64_t servers, double utilisation, uint64_t seed) {
  const Deployment deployment = Chat();
  const double service_s = PrefillBusySeconds(deployment, 1000);
  const double rate = utilisation * static_cast<double>(servers) / service_s;
  const auto workload = WorkloadOf({.rate_per_s = rate, .input_tokens = 1000, .output_tokens = 1});
  std::cout << "seed " << seed << "\n";
  return *Simulate(deployment, *workload,
                   {.prefill = servers, .requests = 1'000'000, .seed = seed});
}

// P(a Poisson variable of this mean >= from).
double PoissonTail(double mean, int from) {
  double below = 0;
  for (int k = 0; k < from; ++k) {
    below += std::exp(k * std::log(mean) - mean - std::lgamma(k + 1));
  }
  return 1 - below;
}

// Mean wait of M/D/c in services, exactly (Crommelin 1932).
double MeanWaitMDc(int servers, double utilisation) {
  const double load = servers * utilisation;
  double sum = 0;
  for (int i = 1; i < 400; ++i) {
    sum +=
        PoissonTail(i * load, i * servers) - PoissonTail(i * load, i * servers + 1) / utilisation;
  }
  return sum;
}

TEST(Simulator, MD1AndMDcWithinTwoPercent) {
  const double service_s = PrefillBusySeconds(Chat(), 1000);
  EXPECT_NEAR(MeanWaitMDc(1, 0.7), 0.7 / (2 * 0.3), 1e-6);  // Pollaczek-Khinchine
  for (const auto& [servers, utilisation] : {std::pair(1, 0.7), {3, 0.8}, {8, 0.85}}) {
    const SimulationResult result = PrefillOnly(servers, utilisation, 11);
    const double exact_s = MeanWaitMDc(servers, utilisation) * service_s;
    EXPECT_NEAR(result.wait_s.mean(), exact_s, 0.02 * exact_s) << servers << " " << utilisation;
    EXPECT_NEAR(result.prefill_utilisation, utilisation, 0.01);
    EXPECT_EQ(result.itl_s.count(), 0);
  }
}

TEST(Simulator, IsDeterministicByItsSeed) {
  const auto workload = WorkloadOf({.rate_per_s = 20,
                                    .arrival_scv = 3,
                                    .input_tokens = 1000,
                                    .input_cv = 1,
                                    .output_tokens = 100,
                                    .output_cv = 1});
  const SimulationOptions options{.prefill = 2, .decode = 2, .requests = 5000, .seed = 5};
  const auto once = Simulate(Chat(), *workload, options);
  const auto again = Simulate(Chat(), *workload, options);
  EXPECT_EQ(once->duration_s, again->duration_s);
  EXPECT_EQ(once->itl_s.mean(), again->itl_s.mean());
  SimulationOptions other = options;
  other.seed = 6;
  EXPECT_NE(Simulate(Chat(), *workload, other)->duration_s, once->duration_s);
}

TEST(Simulator, PlansPredictWhatHappens) {
  const auto workload = WorkloadOf({.rate_per_s = 40,
                                    .input_tokens = 2000,
                                    .input_cv = 0.7,
                                    .output_tokens = 200,
                                    .output_cv = 1});
  const Deployment deployment = Chat();
  const auto result =
      Simulate(deployment, *workload, {.prefill = 5, .decode = 2, .requests = 200'000, .seed = 3});
  ASSERT_TRUE(result.ok()) << result.status();
  const PromptQueue prompts = PrefillQueue(deployment, *workload, 5);
  const DecodeBatch batch(deployment, *workload, 0);
  EXPECT_NEAR(result->prefill_utilisation, prompts.Utilisation(40, 5), 0.02);
  for (const double p : {0.5, 0.99}) {
    const double ttft_s = prompts.TtftPercentile(40, 5, p);
    EXPECT_NEAR(result->ttft_s.Percentile(p), ttft_s, 0.1 * ttft_s) << p;
    const double itl_s = batch.ItlPercentile(40, 2, p);
    EXPECT_NEAR(result->itl_s.Percentile(p), itl_s, 0.1 * itl_s) << p;
  }
  // Every token but the first of each request is one gap.
  EXPECT_NEAR(result->itl_s.count(), 200'000 * (workload->MeanOutput() - 1), 0.02 * 200'000 * 200);
}

TEST(Simulator, ReplaysATraceAgainAndAgain) {
  Trace trace;
  for (int i = 0; i < 10; ++i) {
    trace.requests.push_back({.arrival_s = 0.5 * i, .input_tokens = 100, .output_tokens = 10});
  }
  const auto workload = WorkloadOf(trace);
  const auto result = Simulate(Chat(), *workload, {.requests = 25});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ttft_s.count(), 25);
  EXPECT_EQ(result->itl_s.count(), 25 * 9);
  EXPECT_NEAR(result->rate_per_s, 2, 1e-9);
  EXPECT_EQ(Simulate(Chat(), *workload, {})->requests, 10);
}

TEST(Simulator, RefusesWhatCannotRun) {
  const auto workload = WorkloadOf({.rate_per_s = 1, .input_tokens = 100, .output_tokens = 10});
  const auto error = [&](const Workload& of, SimulationOptions options) {
    return std::string(Simulate(Chat(), of, options).status().message());
  };
  EXPECT_THAT(error({}, {}), HasSubstr("no requests or no rate"));
  EXPECT_THAT(error(*workload, {.prefill = 0}), HasSubstr("0 workers: must be 1 to"));
  EXPECT_THAT(error(*workload, {.requests = 1}), HasSubstr("1 requests: must be 2 to"));
  const auto longer = WorkloadOf({.rate_per_s = 1, .input_tokens = 1e8, .output_tokens = 10});
  EXPECT_THAT(error(*longer, {}), HasSubstr("does not fit"));
}

TEST(Histogram, PercentilesToOnePercent) {
  Histogram histogram;
  for (int i = 1; i <= 10'000; ++i) histogram.Add(i * 1e-4);
  EXPECT_NEAR(histogram.Percentile(0.5), 0.5, 0.006);
  EXPECT_NEAR(histogram.Percentile(0.99), 0.99, 0.011);
  EXPECT_NEAR(histogram.ShareWithin(0.25), 0.25, 0.01);
  EXPECT_NEAR(histogram.mean(), 0.50005, 1e-9);
  EXPECT_EQ(Histogram().Percentile(0.5), 0);
  Histogram zeros;
  zeros.Add(0, 10);
  EXPECT_EQ(zeros.Percentile(0.99), 0);
}

}  // namespace
}  // namespace baton::planner
