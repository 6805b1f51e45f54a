#include "planner/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <random>

namespace baton::planner {
namespace {

using testing::HasSubstr;

constexpr double kAny = std::numeric_limits<double>::infinity();

PlanRequest ChatRequest(double rate_per_s) {
  return {.deployment = {.model = *KnownModelFacts("llama-3-70b"),
                         .hardware = *KnownHardwareFacts("h100"),
                         .worker = {.tensor_parallel = 4}},
          .workload = *WorkloadOf({.rate_per_s = rate_per_s,
                                   .input_tokens = 2000,
                                   .input_cv = 1,
                                   .output_tokens = 300,
                                   .output_cv = 1}),
          .objectives = {.ttft_s = 2, .itl_s = 0.03}};
}

std::string PlanError(const PlanRequest& request) {
  return std::string(MakePlan(request).status().message());
}

// Prompts whose prefill takes `seconds` each, at random times.
PromptQueue Queue(std::vector<double> seconds) {
  return PromptQueue({.arrivals = {.per_s = 1}}, seconds, seconds);
}

TEST(Pools, MaxRateIsWhereThePercentileMeetsTheObjective) {
  const PromptQueue queue = Queue({0.5, 1, 1.5, 2});
  const double rate = queue.MaxRate(3, 5, 0.99);
  EXPECT_NEAR(queue.TtftPercentile(rate, 3, 0.99), 5, 0.01);
  EXPECT_LT(queue.Utilisation(rate, 3), 1);
  EXPECT_EQ(queue.MaxRate(3, 1.9, 0.99), 0);  // the longest take 2 s alone
  EXPECT_EQ(queue.TtftPercentile(10, 3, 0.5), kAny);
}

TEST(Pools, OnePoolOfFourWaitsLessThanOneOfOneAtTheSameShare) {
  const PromptQueue queue = Queue({1});
  EXPECT_GT(queue.TtftPercentile(0.8, 1, 0.99), queue.TtftPercentile(3.2, 4, 0.99));
}

TEST(Pools, ReplayOfPoissonArrivalsIsTheQueue) {
  const uint64_t seed = 42;
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> between(1);
  Workload trace;
  double now = 0;
  for (int i = 0; i < 100'000; ++i) trace.arrival_s.push_back(now += between(random));
  trace.arrivals.per_s = 100'000 / now;
  const std::vector<double> seconds(trace.arrival_s.size(), 1);
  const PromptQueue replayed(trace, seconds, seconds);
  for (const double rate : {1.5, 2.7}) {
    const double expected = Queue({1}).TtftPercentile(rate, 3, 0.99);
    EXPECT_NEAR(replayed.TtftPercentile(rate, 3, 0.99), expected, 0.1 * expected) << rate;
  }
}

TEST(Pools, DecodeStaysWithinItsObjective) {
  const PlanRequest request = ChatRequest(10);
  const DecodeBatch batch(request.deployment, request.workload, 0);
  const double within = batch.MaxRate(1, 0.028, 0.99);
  EXPECT_LE(batch.ItlPercentile(within, 1, 0.99), 0.028);
  EXPECT_GT(batch.ItlPercentile(within * 1.05, 1, 0.99), 0.028);
  EXPECT_LT(within, batch.MaxRate(1, kAny, 0.99));
  EXPECT_NEAR(batch.MaxRate(2, kAny, 0.99), 2 * batch.Saturation(), 1e-3);
  EXPECT_EQ(batch.MaxRate(1, 0.001, 0.99), 0);
  // Longer answers stay longer, so a batch holds more of their tokens than a mean request has.
  EXPECT_GT(MeanContextTokens(request.workload), 2000 + 300 / 2);
}

TEST(Plan, FewestWorkersThatMeetTheObjectives) {
  const PlanRequest request = ChatRequest(10);
  const auto plan = MakePlan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GE(plan->goodput_per_s, 10);
  EXPECT_LE(plan->ttft_p99_s, 2);
  EXPECT_LE(plan->itl_p99_s, 0.03);
  EXPECT_LT(plan->ttft_p50_s, plan->ttft_p99_s);
  // One less of either does not do, and the plan says so.
  EXPECT_LT(plan->goodput_less_prefill, 10);
  EXPECT_LT(plan->goodput_less_decode, 10);
  PlanRequest fewer = request;
  fewer.prefill = plan->prefill - 1;
  fewer.decode = plan->decode;
  EXPECT_DOUBLE_EQ(MakePlan(fewer)->goodput_per_s, plan->goodput_less_prefill);
  // Work is conserved: arrivals times the mean prefill, Little's law for the batch.
  EXPECT_NEAR(plan->mean_batch * static_cast<double>(plan->decode),
              10 * plan->itl_p50_s * request.workload.MeanOutput(), 5);
}

TEST(Plan, ShadowPricesAreWhatOneMoreBrings) {
  PlanRequest request = ChatRequest(10);
  const auto plan = MakePlan(request);
  EXPECT_EQ(plan->binding, Resource::kPrefillFlops);
  const ResourceUse& prefill = plan->resources[0];
  EXPECT_GT(prefill.shadow_price, 0);
  request.prefill = plan->prefill + 1;
  request.decode = plan->decode;
  EXPECT_NEAR(MakePlan(request)->goodput_per_s, plan->goodput_per_s + prefill.shadow_price, 1e-6);
  for (const ResourceUse& use : plan->resources) {
    EXPECT_GT(use.utilisation, 0);
    EXPECT_GE(use.max_rate_per_s, plan->goodput_per_s * (1 - 1e-6));
  }
}

TEST(Plan, SlowLinksBind) {
  PlanRequest request = ChatRequest(2);
  request.deployment.hardware.network_bytes_per_s = 0.45e9;  // 2.2 requests a second and pair
  const auto plan = MakePlan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->binding, Resource::kLinks);
  EXPECT_NEAR(plan->goodput_per_s, 4 * 0.45e9 * 0.8 / (327680 * request.workload.MeanInput()),
              1e-6);
}

TEST(Plan, SplitsAFleetForTheMostGoodput) {
  PlanRequest request = ChatRequest(0);
  request.fleet_workers = 12;
  const auto plan = MakePlan(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->prefill + plan->decode, 12);
  const auto grid = GoodputGrid(request, 11, 11);
  for (int64_t prefill = 1; prefill < 12; ++prefill) {
    EXPECT_LE(grid[static_cast<size_t>(prefill - 1)][static_cast<size_t>(11 - prefill)],
              plan->goodput_per_s * (1 + 1e-9))
        << prefill;
  }
}

TEST(Plan, SaysThatThreeToOneDiverges) {
  // The book's case with what it leaves out: at its own batch, three prefill workers for one decode
  // worker are nearly always busy.
  PlanRequest request{.deployment = {.model = *KnownModelFacts("llama-3-70b"),
                                     .hardware = *KnownHardwareFacts("tpu-v5e"),
                                     .worker = {.tensor_parallel = 16}},
                      .workload = *WorkloadOf({.input_tokens = 8192, .output_tokens = 512}),
                      .batch = 32,
                      .prefill = 3,
                      .decode = 1};
  const auto three = MakePlan(request);
  ASSERT_TRUE(three.ok()) << three.status();
  EXPECT_GT(three->resources[0].utilisation, 0.9);
  EXPECT_GT(three->ttft_p99_s, 8 * three->ratio.prefill_s);
  EXPECT_THAT(three->findings.front(), HasSubstr("at the 99th percentile a first token takes"));
  request.prefill = 2;
  const auto two = MakePlan(request);
  EXPECT_TRUE(std::isinf(two->ttft_p50_s));
  EXPECT_THAT(two->findings.front(), HasSubstr("2 prefill workers do not keep up"));
  request.prefill = 0;
  EXPECT_GT(MakePlan(request)->prefill, 3);
}

TEST(Plan, DisaggregatesWhereGapsMatterOnly) {
  PlanRequest request = ChatRequest(10);
  EXPECT_TRUE(MakePlan(request)->disaggregate);
  request.objectives.itl_s = 0;  // any gap will do
  const auto plan = MakePlan(request);
  EXPECT_FALSE(plan->disaggregate);
  EXPECT_THAT(plan->findings.back(), HasSubstr("do not disaggregate"));
}

TEST(Plan, PrefixHitsTakePrefillWorkersAway) {
  PlanRequest request = ChatRequest(40);
  const int64_t cold = MakePlan(request)->prefill;
  for (RequestLength& length : request.workload.requests) length.cached_share = 0.8;
  EXPECT_LT(MakePlan(request)->prefill, (cold + 1) / 2);
}

TEST(Plan, RefusesWithTheNumbers) {
  PlanRequest request = ChatRequest(10);
  request.objectives.ttft_s = 0.05;
  EXPECT_THAT(PlanError(request), HasSubstr("no plan gives a first token within 50 ms"));
  request = ChatRequest(10);
  request.objectives.itl_s = 0.001;
  EXPECT_THAT(PlanError(request), HasSubstr("no plan gives 1 ms between tokens: a decode step of a "
                                            "single sequence takes"));
  request = ChatRequest(1e9);
  EXPECT_THAT(PlanError(request), HasSubstr("need more than 4096 workers"));
  request = ChatRequest(10);
  request.deployment.worker.tensor_parallel = 1;
  EXPECT_THAT(PlanError(request), HasSubstr("llama-3-70b does not fit: 141.1 GB of weights"));
  request = ChatRequest(10);
  request.batch = 100'000;
  EXPECT_THAT(PlanError(request), HasSubstr("a batch of 100000 does not fit"));
  request = ChatRequest(10);
  request.fleet_workers = 1;
  EXPECT_THAT(PlanError(request), HasSubstr("a fleet of 1 workers"));
  request = ChatRequest(10);
  request.objectives.percentile = 1;
  EXPECT_THAT(PlanError(request), HasSubstr("the percentile is 1"));
  request = ChatRequest(10);
  request.objectives.itl_s = std::nan("");
  EXPECT_THAT(PlanError(request), HasSubstr("an objective of nan s"));
}

}  // namespace
}  // namespace baton::planner
