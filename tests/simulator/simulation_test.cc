#include "simulator/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "planner/pools.h"
#include "planner/ratio.h"

namespace baton::simulator {
namespace {

using planner::Deployment;
using planner::Workload;
using planner::WorkloadOf;
using testing::HasSubstr;

Deployment Chat() {
  return {.model = *planner::KnownModelFacts("llama-3-8b"),
          .hardware = *planner::KnownHardwareFacts("h100")};
}

// A prompt of one chunk takes a second; answers have one token, so there is nothing but prefill.
SimulatedWorker OneSecondAPrompt() {
  return {.step_s =
              [](const planner::StepLoad& load) {
                double tokens = 0;
                for (const planner::PromptRange& prompt : load.prompts) tokens += prompt.tokens;
                return tokens / 1000;
              },
          .kv_blocks = 1 << 20,
          .chunk_tokens = 1000};
}

SimulationResult PrefillOnly(int64_t servers, double utilisation, uint64_t seed, bool exact_load) {
  const auto workload = WorkloadOf({.rate_per_s = utilisation * static_cast<double>(servers),
                                    .input_tokens = 1000,
                                    .output_tokens = 1});
  std::cout << "seed " << seed << "\n";
  return *Simulate(
      OneSecondAPrompt(), *workload,
      {.prefill = servers, .requests = 1'000'000, .seed = seed, .exact_load = exact_load});
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

// Least work first is one queue for all, where work is known.
TEST(Simulation, MD1AndMDcWithinTwoPercent) {
  EXPECT_NEAR(MeanWaitMDc(1, 0.7), 0.7 / (2 * 0.3), 1e-6);  // Pollaczek-Khinchine
  for (const auto& [servers, utilisation] : {std::pair(1, 0.7), {3, 0.8}, {8, 0.85}}) {
    const SimulationResult result = PrefillOnly(servers, utilisation, 11, true);
    const double exact_s = MeanWaitMDc(servers, utilisation);
    EXPECT_NEAR(result.wait_s.mean(), exact_s, 0.02 * exact_s) << servers << " " << utilisation;
    EXPECT_NEAR(result.ttft_s.mean(), exact_s + 1, 0.02 * exact_s);
    EXPECT_NEAR(result.prefill_utilisation, utilisation, 0.01);
    EXPECT_EQ(result.itl_s.count(), 0);
  }
}

// One worker's queue is the same whoever knows what of it. Of several, the router knows open
// prompts, not how far they are.
TEST(Simulation, WhatTheRouterDoesNotKnowCostsSomeWaiting) {
  const double exact_1_s = MeanWaitMDc(1, 0.7);
  EXPECT_NEAR(PrefillOnly(1, 0.7, 12, false).wait_s.mean(), exact_1_s, 0.02 * exact_1_s);
  const double exact_3_s = MeanWaitMDc(3, 0.8);
  const double real_s = PrefillOnly(3, 0.8, 12, false).wait_s.mean();
  EXPECT_GT(real_s, 0.98 * exact_3_s);
  EXPECT_LT(real_s, 2 * exact_3_s);
}

Workload Mixed(double rate_per_s) {
  return *WorkloadOf({.rate_per_s = rate_per_s,
                      .arrival_scv = 3,
                      .input_tokens = 1000,
                      .input_cv = 1,
                      .output_tokens = 100,
                      .output_cv = 1});
}

TEST(Simulation, IsDeterministicByItsSeed) {
  const SimulatedWorker worker = *WorkerOf(Chat(), 0);
  const Workload workload = Mixed(20);
  const SimulationOptions options{.prefill = 2, .decode = 2, .requests = 5000, .seed = 5};
  const auto once = Simulate(worker, workload, options);
  const auto again = Simulate(worker, workload, options);
  EXPECT_EQ(once->duration_s, again->duration_s);
  EXPECT_EQ(once->itl_s.mean(), again->itl_s.mean());
  SimulationOptions other = options;
  other.seed = 6;
  EXPECT_NE(Simulate(worker, workload, other)->duration_s, once->duration_s);
}

TEST(Simulation, PlansPredictWhatHappens) {
  const auto workload = WorkloadOf({.rate_per_s = 40,
                                    .input_tokens = 2000,
                                    .input_cv = 0.7,
                                    .output_tokens = 200,
                                    .output_cv = 1});
  const Deployment deployment = Chat();
  const auto result = Simulate(*WorkerOf(deployment, 0), *workload,
                               {.prefill = 5, .decode = 2, .requests = 100'000, .seed = 3});
  ASSERT_TRUE(result.ok()) << result.status();
  const planner::PromptQueue prompts = planner::PrefillQueue(deployment, *workload, 5);
  const planner::DecodeBatch batch(deployment, *workload, 0);
  EXPECT_NEAR(result->prefill_utilisation, prompts.Utilisation(40, 5), 0.03);
  for (const double p : {0.5, 0.99}) {
    const double ttft_s = prompts.TtftPercentile(40, 5, p);
    EXPECT_NEAR(result->ttft_s.Percentile(p), ttft_s, 0.25 * ttft_s) << p;
    const double itl_s = batch.ItlPercentile(40, 2, p);
    EXPECT_NEAR(result->itl_s.Percentile(p), itl_s, 0.1 * itl_s) << p;
  }
  // Every token but the first of each request is one gap.
  EXPECT_NEAR(result->itl_s.count(), 100'000 * (workload->MeanOutput() - 1), 0.02 * 100'000 * 200);
}

TEST(Simulation, ReplaysATraceAgainAndAgain) {
  planner::Trace trace{.block_tokens = 64};
  for (int i = 0; i < 10; ++i) {
    trace.requests.push_back({.arrival_s = 0.5 * i,
                              .input_tokens = 128,
                              .output_tokens = 10,
                              .prefix_blocks = {1, 2 + i}});
  }
  const auto workload = WorkloadOf(trace);
  const SimulatedWorker worker = *WorkerOf(Chat(), 0);
  const auto result = Simulate(worker, *workload, {.requests = 25});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ttft_s.count(), 25);
  EXPECT_EQ(result->itl_s.count(), 25 * 9);
  EXPECT_NEAR(result->rate_per_s, 2, 1e-9);
  // The first block is cached from the second request on, and anew in each round.
  EXPECT_NEAR(result->cached_share, 22.0 / 25 / 2, 1e-9);
  EXPECT_EQ(Simulate(worker, *workload, {})->requests, 10);
  EXPECT_NEAR(Simulate(worker, *workload, {.faster = 2})->rate_per_s, 4, 1e-9);
}

// Many prompts at once that begin alike: one worker has the beginning, the other one gets it.
TEST(Simulation, FetchesAPrefixWhereThatIsFasterThanComputingIt) {
  planner::Trace trace{.block_tokens = 512};
  std::vector<int64_t> shared(16);
  for (int i = 0; i < 16; ++i) shared[static_cast<size_t>(i)] = i;
  for (int i = 0; i < 60; ++i) {
    trace.requests.push_back({.arrival_s = i == 0 ? 0 : 10 + 0.01 * i,
                              .input_tokens = 16 * 512 + 400,
                              .output_tokens = 2,
                              .prefix_blocks = shared});
    trace.requests.back().prefix_blocks.push_back(1000 + i);
  }
  const auto workload = WorkloadOf(trace);
  SimulatedWorker worker = *WorkerOf(Chat(), 0);
  const SimulationOptions options{.prefill = 2, .decode = 1};
  const auto fetched = Simulate(worker, *workload, options);
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_GT(fetched->fetched_share, 0);
  EXPECT_LE(fetched->fetched_share, fetched->cached_share);
  worker.kv_bytes_per_s = 1e6;  // computing is faster
  const auto computed = Simulate(worker, *workload, options);
  EXPECT_EQ(computed->fetched_share, 0);
  EXPECT_LT(computed->cached_share, fetched->cached_share + 1e-12);
}

TEST(Simulation, WithoutPrefillWorkersDecodeWorkersPrefill) {
  const auto result = Simulate(*WorkerOf(Chat(), 0), Mixed(5), {.prefill = 0, .requests = 2000});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ttft_s.count(), 2000);
  EXPECT_EQ(result->prefill_utilisation, 0);
  EXPECT_GT(result->decode_utilisation, 0.01);
}

TEST(Simulation, RefusesWhatCannotRun) {
  const SimulatedWorker worker = *WorkerOf(Chat(), 0);
  const auto workload = WorkloadOf({.rate_per_s = 1, .input_tokens = 100, .output_tokens = 10});
  const auto error = [&](const Workload& of, SimulationOptions options) {
    return std::string(Simulate(worker, of, options).status().message());
  };
  EXPECT_THAT(error({}, {}), HasSubstr("no requests or no rate"));
  EXPECT_THAT(error(*workload, {.decode = 0}), HasSubstr("1 prefill and 0 decode workers"));
  EXPECT_THAT(error(*workload, {.requests = 1}), HasSubstr("1 requests: must be 2 to"));
  EXPECT_THAT(error(*workload, {.faster = NAN}), HasSubstr("times as fast"));
  const auto longer = WorkloadOf({.rate_per_s = 1, .input_tokens = 1e8, .output_tokens = 10});
  EXPECT_THAT(error(*longer, {}), HasSubstr("does not fit"));
  Deployment tiny = Chat();
  tiny.hardware.hbm_bytes = 1e9;
  EXPECT_THAT(std::string(WorkerOf(tiny, 0).status().message()), HasSubstr("does not fit"));
}

// Swaps the worker's role back and forth, as often as it is asked.
class Restless : public FleetControl {
 public:
  void OnArrival(double, int64_t, int32_t) override { ++arrivals; }
  void OnFirstToken(double, int64_t, int32_t) override { ++first_tokens; }
  void OnEnd(double, int64_t, int32_t output_tokens) override { tokens += output_tokens; }
  void OnProgress(int64_t, int32_t) override {}
  std::vector<RoleChange> Decide(const FleetView& fleet) override {
    const size_t worker = asked_++ % fleet.workers.size();
    for (const FleetView::Worker& one : fleet.workers) {
      if (one.draining) return {};
    }
    const bool prefill = fleet.workers[worker].role == worker_link::Role::kPrefill;
    return {{worker, prefill ? worker_link::Role::kDecode : worker_link::Role::kPrefill}};
  }
  int64_t arrivals = 0, first_tokens = 0, tokens = 0;

 private:
  size_t asked_ = 0;
};

TEST(Simulation, RolesChangeAndEveryTokenStillComes) {
  Restless control;
  const Workload workload = Mixed(20);
  const auto result = Simulate(*WorkerOf(Chat(), 16), workload,
                               {.prefill = 2,
                                .decode = 3,
                                .requests = 5000,
                                .seed = 9,
                                .control = &control,
                                .control_every_s = 2,
                                .grace_s = 0.2});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->role_changes, 20);
  EXPECT_GT(result->moved, 0);
  EXPECT_EQ(control.arrivals, 5000);
  EXPECT_EQ(control.first_tokens, 5000);
  EXPECT_EQ(result->ttft_s.count(), 5000);
  EXPECT_EQ(result->itl_s.count(), static_cast<double>(control.tokens - 5000));
}

}  // namespace
}  // namespace baton::simulator
