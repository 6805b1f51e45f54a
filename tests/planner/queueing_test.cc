#include "planner/queueing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <random>
#include <vector>

namespace baton::planner {
namespace {

ServiceTimes Exponential(double mean_s) { return {.mean_s = mean_s, .scv = 1}; }
ServiceTimes Deterministic(double mean_s) { return {.mean_s = mean_s, .scv = 0}; }

TEST(Queueing, ErlangCByItsDefinition) {
  for (const int servers : {1, 2, 5, 20}) {
    for (const double utilisation : {0.1, 0.5, 0.9, 0.99}) {
      const double load = servers * utilisation;
      double term = 1, sum = 0;
      for (int k = 0; k < servers; ++k) {
        sum += term;
        term *= load / (k + 1);
      }
      const double all_busy = term / (1 - utilisation);
      EXPECT_NEAR(ErlangC(servers, load), all_busy / (sum + all_busy), 1e-12);
    }
  }
  EXPECT_EQ(ErlangC(3, 3), 1);
  EXPECT_EQ(ErlangC(3, 0), 0);
}

TEST(Queueing, PollaczekKhinchineForOneServer) {
  for (const double utilisation : {0.2, 0.7, 0.95, 0.997}) {
    for (const double scv : {0.0, 0.5, 1.0, 4.0}) {
      const Wait wait = WaitFor({.per_s = utilisation / 2}, {.mean_s = 2, .scv = scv}, 1);
      const double second_moment = (1 + scv) * 4;
      EXPECT_NEAR(wait.mean_s, utilisation / 2 * second_moment / (2 * (1 - utilisation)), 1e-9);
    }
  }
}

TEST(Queueing, WaitOfMMc) {
  const Wait wait = WaitFor({.per_s = 4.5}, Exponential(1), 5);
  EXPECT_DOUBLE_EQ(wait.utilisation, 0.9);
  EXPECT_NEAR(wait.mean_s, ErlangC(5, 4.5) / 0.5, 1e-12);
  EXPECT_NEAR(wait.Beyond(3), ErlangC(5, 4.5) * std::exp(-3 * 0.5), 1e-12);
}

// P(wait <= t) of M/D/1 with service 1 (Erlang 1909).
double MD1(double rate, double t) {
  double sum = 0;
  for (int k = 0; k <= static_cast<int>(t); ++k) {
    const double x = rate * (k - t);
    sum += std::pow(x, k) / std::tgamma(k + 1) * std::exp(-x);
  }
  return (1 - rate) * sum;
}

TEST(Queueing, PercentilesOfMD1) {
  for (const double rate : {0.3, 0.5, 0.8, 0.9}) {
    const Wait wait = WaitFor({.per_s = rate}, Deterministic(1), 1);
    double exact = 0;  // where 1% wait longer
    while (MD1(rate, exact) < 0.99) exact += 0.01;
    const std::vector<double> service = {1};
    EXPECT_NEAR(ResponsePercentile(wait, service, 0.99), 1 + exact, 0.06 * (1 + exact)) << rate;
  }
}

// Every arrival's wait, by the times at which servers become free.
std::vector<double> SimulatedWaits(double per_s, int servers, int count, uint64_t seed,
                                   const std::function<double(std::mt19937_64&)>& service) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> between(per_s);
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int i = 0; i < servers; ++i) free_at.push(0);
  std::vector<double> waits;
  double now = 0;
  for (int i = 0; i < count; ++i) {
    now += between(random);
    const double start = std::max(now, free_at.top());
    free_at.pop();
    free_at.push(start + service(random));
    waits.push_back(start - now);
  }
  return waits;
}

TEST(Queueing, ManyServersAgainstASimulation) {
  const uint64_t seed = 20261121;
  std::cout << "seed " << seed << "\n";
  struct Case {
    int servers;
    double utilisation, scv;
  };
  for (const Case& c :
       {Case{1, 0.8, 0}, Case{3, 0.8, 0}, Case{3, 0.8, 0.5}, Case{8, 0.9, 0}, Case{8, 0.9, 1}}) {
    // Gamma distributed: any scv, 0 being a constant.
    const auto service = [&](std::mt19937_64& random) {
      if (c.scv == 0) return 1.0;
      return std::gamma_distribution<double>(1 / c.scv, c.scv)(random);
    };
    const double per_s = c.utilisation * c.servers;
    std::vector<double> waits = SimulatedWaits(per_s, c.servers, 400'000, seed, service);
    double mean = 0;
    for (const double w : waits) mean += w / static_cast<double>(waits.size());
    const size_t at = waits.size() * 99 / 100;
    std::nth_element(waits.begin(), waits.begin() + static_cast<std::ptrdiff_t>(at), waits.end());
    const Wait wait = WaitFor({.per_s = per_s}, {.mean_s = 1, .scv = c.scv}, c.servers);
    EXPECT_NEAR(wait.mean_s, mean, 0.05 * mean) << c.servers << " servers, scv " << c.scv;
    const std::vector<double> none = {0};
    EXPECT_NEAR(ResponsePercentile(wait, none, 0.99), waits[at], 0.1 * waits[at])
        << c.servers << " servers, scv " << c.scv;
  }
}

TEST(Queueing, ResponseOfAnIdleQueueIsTheServiceTime) {
  const std::vector<double> seconds = {1, 2, 3, 4};
  EXPECT_NEAR(ResponsePercentile(WaitFor({}, ServiceOf(seconds), 1), seconds, 0.5), 2, 1e-6);
  EXPECT_NEAR(ResponsePercentile(WaitFor({}, ServiceOf(seconds), 1), seconds, 0.99), 4, 1e-6);
  EXPECT_TRUE(
      std::isinf(ResponsePercentile(WaitFor({.per_s = 0.4}, ServiceOf(seconds), 1), seconds, 0.5)));
}

TEST(Queueing, BurstsWaitLonger) {
  const Wait smooth = WaitFor({.per_s = 0.8, .scv = 0.5}, Deterministic(1), 1);
  const Wait bursty = WaitFor({.per_s = 0.8, .scv = 4}, Deterministic(1), 1);
  EXPECT_LT(smooth.mean_s, WaitFor({.per_s = 0.8}, Deterministic(1), 1).mean_s);
  EXPECT_DOUBLE_EQ(bursty.mean_s, 8 * smooth.mean_s);
}

TEST(Batches, ConstantStepsAreManyServers) {
  // Steps that do not depend on the batch: n sequences are n servers, M/M/c of the same load.
  const std::vector<double> steps(11, 0.02);
  const BatchDistribution batches = BatchesAt({.per_s = 4}, 100, steps);  // load 4 * 2 s = 8
  EXPECT_TRUE(batches.stable);
  EXPECT_NEAR(batches.waiting, ErlangC(10, 8), 1e-9);
  EXPECT_NEAR(batches.mean, 8, 1e-9);
  EXPECT_NEAR(batches.GapPercentile(steps, 0.99), 0.02, 1e-9);
  // Contexts that differ by 1 ms a sequence: about 8 of them by 2.8 ms, 2.33 times that at 99%.
  EXPECT_NEAR(batches.GapPercentile(steps, 0.99, {.spread_s = 0.001}), 0.02 + 2.33 * 0.0028,
              0.0005);
  EXPECT_NEAR(batches.GapPercentile(steps, 0.5, {.spread_s = 0.001}), 0.02, 1e-9);
  // Of one gap in ten half are longer than one and a half steps: 95% are shorter.
  EXPECT_NEAR(batches.GapPercentile(steps, 0.95, {.first_share = 0.1}), 0.03, 0.0001);
  EXPECT_NEAR(batches.GapPercentile(steps, 0.5, {.first_share = 0.1}), 0.02, 1e-9);
  EXPECT_FALSE(BatchesAt({.per_s = 5}, 100, steps).stable);
}

TEST(Batches, StepsProportionalToTheBatchAreOneSharedServer) {
  // n sequences share steps of n * 10 ms: processor sharing, geometric as M/M/1.
  std::vector<double> steps(2001);
  for (size_t n = 0; n < steps.size(); ++n) steps[n] = 0.01 * static_cast<double>(n);
  const BatchDistribution batches = BatchesAt({.per_s = 0.9}, 100, steps);
  EXPECT_NEAR(batches.probability[0], 0.1, 1e-9);
  EXPECT_NEAR(batches.mean, 9, 1e-6);
  // Tokens are made at one rate in every state but 0: the percentile is that of a geometric.
  const double n = std::ceil(std::log(0.01) / std::log(0.9));
  EXPECT_NEAR(batches.GapPercentile(steps, 0.99), 0.01 * n, 1e-9);
}

TEST(Batches, BurstsMakeLargerBatches) {
  std::vector<double> steps(201);
  for (size_t n = 0; n < steps.size(); ++n) steps[n] = 0.01 + 0.0001 * static_cast<double>(n);
  const BatchDistribution poisson = BatchesAt({.per_s = 10}, 500, steps);
  const BatchDistribution bursty = BatchesAt({.per_s = 10, .scv = 7}, 500, steps);
  EXPECT_GT(bursty.GapPercentile(steps, 0.99), poisson.GapPercentile(steps, 0.99));
  EXPECT_NEAR(bursty.mean, poisson.mean, 0.05 * poisson.mean);
  // However large the bursts, as much finishes as arrives.
  const BatchDistribution wild = BatchesAt({.per_s = 10, .scv = 70}, 500, steps);
  double finished = 0;
  for (size_t n = 1; n < steps.size(); ++n) {
    finished += wild.probability[n] * static_cast<double>(n) / (steps[n] * 500);
  }
  EXPECT_NEAR(finished, 10, 1e-3);
}

}  // namespace
}  // namespace baton::planner
