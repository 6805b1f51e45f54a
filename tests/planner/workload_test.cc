#include "planner/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <random>

namespace baton::planner {
namespace {

using testing::HasSubstr;

std::string WorkloadError(const Trace& trace) {
  return std::string(WorkloadOf(trace).status().message());
}

TEST(Workload, NumbersGiveTheirMeansAndVariations) {
  const auto workload = WorkloadOf({.rate_per_s = 3,
                                    .input_tokens = 2000,
                                    .input_cv = 1.2,
                                    .output_tokens = 300,
                                    .output_cv = 0.5});
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_EQ(workload->arrivals.per_s, 3);
  EXPECT_NEAR(workload->MeanInput(), 2000, 40);
  EXPECT_NEAR(workload->MeanOutput(), 300, 6);
  std::vector<double> inputs;
  double together = 0;
  for (const RequestLength& request : workload->requests) {
    inputs.push_back(request.input_tokens);
    together += (request.input_tokens - 2000) * (request.output_tokens - 300);
  }
  EXPECT_NEAR(std::sqrt(ServiceOf(inputs).scv), 1.2, 0.1);  // 512 quantiles cut the tail
  // Neither length tells of the other.
  const double correlation = together / static_cast<double>(inputs.size()) / (2400.0 * 150.0);
  EXPECT_NEAR(correlation, 0, 0.05);
  EXPECT_EQ(WorkloadOf({.input_tokens = 5, .output_tokens = 6})->requests.size(), 1);
}

TEST(Workload, RefusesNumbersThatAreNone) {
  const auto error = [](WorkloadNumbers numbers) {
    return std::string(WorkloadOf(numbers).status().message());
  };
  EXPECT_THAT(error({.rate_per_s = std::nan(""), .input_tokens = 1, .output_tokens = 1}),
              HasSubstr("the rate is nan"));
  EXPECT_THAT(error({.rate_per_s = -1, .input_tokens = 1, .output_tokens = 1}),
              HasSubstr("the rate is -1"));
  EXPECT_THAT(error({.input_tokens = 0, .output_tokens = 1}), HasSubstr("the input is 0"));
  EXPECT_THAT(error({.input_tokens = 1, .output_tokens = 1, .prefix_hit_share = 1}),
              HasSubstr("the prefix hit share is 1"));
}

TEST(Workload, DispersionOfATrace) {
  const uint64_t seed = 7;
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> between(5);
  Trace poisson, bursty, even;
  double now = 0;
  for (int i = 0; i < 20'000; ++i) {
    now += between(random);
    poisson.requests.push_back({.arrival_s = now, .input_tokens = 10, .output_tokens = 20});
    even.requests.push_back({.arrival_s = 0.2 * i, .input_tokens = 10, .output_tokens = 20});
  }
  now = 0;
  for (int i = 0; i < 4000; ++i) {  // five at a time
    now += 5 * between(random);
    for (int k = 0; k < 5; ++k) {
      bursty.requests.push_back(
          {.arrival_s = now + 0.001 * k, .input_tokens = 10, .output_tokens = 20});
    }
  }
  std::ranges::sort(bursty.requests, {}, &TraceRequest::arrival_s);
  EXPECT_NEAR(WorkloadOf(poisson)->arrivals.per_s, 5, 0.2);
  EXPECT_NEAR(WorkloadOf(poisson)->arrivals.scv, 1, 0.25);
  EXPECT_NEAR(WorkloadOf(bursty)->arrivals.scv, 5, 1.2);
  EXPECT_LT(WorkloadOf(even)->arrivals.scv, 0.1);
}

TEST(Workload, TicksAreSpread) {
  Trace trace;
  for (const double at : {0, 0, 0, 3, 3, 6}) {
    trace.requests.push_back({.arrival_s = at, .input_tokens = 1, .output_tokens = 1});
  }
  EXPECT_THAT(WorkloadOf(trace)->arrival_s, testing::ElementsAre(0, 1, 2, 3, 4.5, 6));
}

TEST(Workload, PrefixHitsByCacheSize) {
  // One prompt again and again among others that nobody repeats: 1000 blocks between repeats.
  Trace trace{.block_tokens = 16};
  int64_t fresh = 1000;
  for (int i = 0; i < 50; ++i) {
    TraceRequest repeated{.arrival_s = 1.0 * i, .input_tokens = 161, .output_tokens = 1};
    for (int64_t block = 0; block < 10; ++block) repeated.prefix_blocks.push_back(block);
    trace.requests.push_back(repeated);
    TraceRequest once{.arrival_s = i + 0.5, .input_tokens = 16'001, .output_tokens = 1};
    for (int block = 0; block < 1000; ++block) once.prefix_blocks.push_back(fresh++);
    trace.requests.push_back(once);
  }
  const auto workload = WorkloadOf(trace);
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_EQ(workload->requests[0].cached_share, 0);
  EXPECT_NEAR(workload->requests[2].cached_share, 160.0 / 161, 1e-9);
  EXPECT_EQ(workload->requests[3].cached_share, 0);
  EXPECT_EQ(workload->prefix_hits.front().hit_share, 0);  // 256 blocks forget it in between
  EXPECT_EQ(workload->HitsKept(256.0 * 16), 0);
  EXPECT_EQ(workload->HitsKept(1e9), 1);
}

TEST(Workload, RefusesTracesWithoutARate) {
  EXPECT_THAT(WorkloadError({}), HasSubstr("the trace has 0 requests"));
  Trace trace;
  trace.requests = {{.arrival_s = 1}, {.arrival_s = 1}};
  EXPECT_THAT(WorkloadError(trace), HasSubstr("all 2 requests of the trace come at once"));
  trace.requests = {{.arrival_s = 2}, {.arrival_s = 1}};
  EXPECT_THAT(WorkloadError(trace), HasSubstr("out of order: a request at 1 s after one at 2 s"));
}

}  // namespace
}  // namespace baton::planner
