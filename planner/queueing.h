#pragma once

// What waiting adds to the times of cost_model.h. Pure functions, each with its source.
//
//   Kleinrock  "Queueing Systems" I and II (1975, 1976): Erlang C, Pollaczek-Khinchine
//   Cosmetatos "Some approximate equilibrium results for the multi-server queue (M/G/r)" (1976)
//   Allen      Arnold Allen, "Probability, Statistics, and Queueing Theory" (1990): G/G/c
//   Takahashi  "Asymptotic exponentiality of the tail of the waiting-time distribution in a PH/PH/c
//              queue" (1981)
//   Kelly      "Reversibility and Stochastic Networks" (1979), symmetric queues
//   Whitt      "Heavy-traffic approximations for service systems with blocking" (1984)
//   Harchol    Harchol-Balter, "Performance Modeling and Design of Computer Systems" (2013), 24.3

#include <cstdint>
#include <span>
#include <vector>

namespace baton::planner {

struct Arrivals {
  double per_s = 0;
  // Squared coefficient of variation of the time between arrivals, or its like for bursts
  // (workload.h); 1: Poisson.
  double scv = 1;
};

struct ServiceTimes {
  double mean_s = 0;
  double scv = 0;  // E[S^2] / E[S]^2 - 1
};
ServiceTimes ServiceOf(std::span<const double> seconds);

// Probability that all of `servers` are busy in M/M/c at `load` = arrivals * mean service (Erlang
// C). 1 when load >= servers.
double ErlangC(int64_t servers, double load);

// Waiting time for the first free of `servers`, first come first served. That is what the router
// gives prompts: each goes to the worker with the least work left, which is the same as one queue
// for all (Harchol).
struct Wait {
  double utilisation = 0;
  double mean_s = 0;       // infinite when utilisation >= 1
  double decay_per_s = 0;  // of P(wait > t) for large t
  // P(wait > t): exponential beyond 0 with this decay, and so large that the mean is right. Exact
  // for M/M/c; within 6% of M/D/1 and 10% of simulated M/G/c at the 99th percentile (tests).
  double Beyond(double t) const;
};

// Mean: M/M/c by Erlang C, times (1 + scv) / 2 for one server (Pollaczek-Khinchine, exact); for
// more and scv <= 1 between M/M/c and M/D/c (Cosmetatos); arrivals' scv as in Allen's G/G/c. Decay:
// c times the root r of E[exp(r S)] E[exp(-c r A)] = 1 (Kleinrock II, Kingman's bound; Takahashi
// for c servers), times between arrivals A and services S being gamma distributed with their two
// moments.
Wait WaitFor(const Arrivals& arrivals, const ServiceTimes& service, int64_t servers);

// Percentile (0 < p < 1) of wait + service, a request's own service being one of `seconds`, all
// equally likely and independent of its wait. Infinite when the queue is unstable.
double ResponsePercentile(const Wait& wait, std::span<const double> seconds, double p);

// What makes gaps between tokens other than steps of mean sequences.
struct GapShape {
  // Standard deviation of what one sequence adds to a step, its context being longer or shorter
  // than the mean; n of them together are taken as normally distributed.
  double spread_s = 0;
  // Of gaps those before a second token, whose sequence came while a step was under way: they last
  // what is left of it, and one step more.
  double first_share = 0;
};

// A decode worker: `n` sequences share steps of step_s[n], so each gets its next token after
// step_s[n], and the worker finishes n / (step_s[n] * mean output) sequences a second. As a queue
// with processor sharing at a rate that depends on n, its distribution of n needs only the means of
// arrivals and lengths (Kelly), while arrivals are Poisson. Others make it wider or narrower: its
// variance is taken (1 + scv) / 2 times as large, the peakedness of a renewal stream at exponential
// service (Whitt), such that as much finishes as arrives. Beyond the last n, sequences wait.
struct BatchDistribution {
  std::vector<double> probability;  // of n = 0, 1, ..., limit; the last one: limit and more
  double waiting = 0;               // probability that a sequence that arrives has to wait
  double mean = 0;                  // sequences in the batch
  bool stable = false;              // false: more arrives than even a full batch finishes

  // Of the gaps between tokens (over tokens, not over time): the share of at most `t`, and
  // percentile p.
  double GapsWithin(std::span<const double> step_s, double t, const GapShape& shape = {}) const;
  double GapPercentile(std::span<const double> step_s, double p, const GapShape& shape = {}) const;
};
// step_s[0] is not used; step_s.size() - 1 is the limit, at least 1.
BatchDistribution BatchesAt(const Arrivals& arrivals, double mean_output_tokens,
                            std::span<const double> step_s);

}  // namespace baton::planner
