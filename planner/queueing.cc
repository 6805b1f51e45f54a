#include "planner/queueing.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "planner/numbers.h"

namespace baton::planner {
namespace {

// Mean wait of M/M/c.
double MarkovWait(double probability, double load, int64_t servers, double mean_s) {
  return probability * mean_s / (static_cast<double>(servers) - load);
}

// Log of E[exp(r X)] of a gamma distribution; a constant for scv 0.
double LogMoment(double r, double mean, double scv) {
  if (scv < 1e-9) return r * mean;
  const double x = r * mean * scv;
  return x >= 1 ? kInfinity : -std::log1p(-x) / scv;
}

// The positive root of the equation in WaitFor, times the number of servers.
double Decay(const Arrivals& arrivals, const ServiceTimes& service, int64_t servers) {
  const double c = static_cast<double>(servers);
  const auto excess = [&](double r) {
    return LogMoment(r, service.mean_s, service.scv) +
           LogMoment(-c * r, 1 / arrivals.per_s, arrivals.scv);
  };
  // Negative up to the root, since more is served than arrives, and positive beyond it.
  double high = 1 / service.mean_s;
  for (int i = 0; i < 200 && excess(high) < 0; ++i) high *= 2;
  double low = 0;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (excess(middle) < 0 ? low : high) = middle;
  }
  return c * high;
}

// Mean wait of M/D/c over that of M/M/c (Cosmetatos); 1/2 for one server, exactly.
double DeterministicShare(int64_t servers, double utilisation) {
  const double c = static_cast<double>(servers);
  const double more =
      (1 - utilisation) * (c - 1) * (std::sqrt(4 + 5 * c) - 2) / (16 * utilisation * c);
  return std::min(1.0, 0.5 * (1 + more));
}

}  // namespace

ServiceTimes ServiceOf(std::span<const double> seconds) {
  double sum = 0, squares = 0;
  for (const double s : seconds) {
    sum += s;
    squares += s * s;
  }
  const double count = static_cast<double>(seconds.size());
  if (sum <= 0) return {};
  const double mean = sum / count;
  return {.mean_s = mean, .scv = std::max(0.0, squares / count / (mean * mean) - 1)};
}

double ErlangC(int64_t servers, double load) {
  const double c = static_cast<double>(servers);
  if (load >= c) return 1;
  if (load <= 0) return 0;
  double blocked = 1;  // Erlang B by its recursion, then C from B
  for (int64_t k = 1; k <= servers; ++k) {
    blocked = load * blocked / (static_cast<double>(k) + load * blocked);
  }
  return c * blocked / (c - load * (1 - blocked));
}

double Wait::Beyond(double t) const {
  if (t < 0) return 1;
  if (mean_s <= 0) return 0;
  if (std::isinf(mean_s)) return 1;
  return std::min(1.0, mean_s * decay_per_s) * std::exp(-t * decay_per_s);
}

Wait WaitFor(const Arrivals& arrivals, const ServiceTimes& service, int64_t servers) {
  const double load = arrivals.per_s * service.mean_s;
  Wait wait{.utilisation = load / static_cast<double>(servers)};
  if (wait.utilisation >= 1) {
    wait.mean_s = kInfinity;
    return wait;
  }
  if (load <= 0) return wait;
  const double markov = MarkovWait(ErlangC(servers, load), load, servers, service.mean_s);
  const double poisson =
      service.scv >= 1
          ? (1 + service.scv) / 2
          : service.scv + (1 - service.scv) * DeterministicShare(servers, wait.utilisation);
  wait.mean_s = markov * poisson * (arrivals.scv + service.scv) / (1 + service.scv);
  wait.decay_per_s = Decay(arrivals, service, servers);
  return wait;
}

double ResponsePercentile(const Wait& wait, std::span<const double> seconds, double p) {
  if (seconds.empty()) return 0;
  if (std::isinf(wait.mean_s)) return kInfinity;
  const auto beyond = [&](double t) {
    double sum = 0;
    for (const double s : seconds) sum += wait.Beyond(t - s);
    return sum / static_cast<double>(seconds.size());
  };
  double low = 0;
  double high = std::max(1e-9, *std::ranges::max_element(seconds));
  while (beyond(high) > 1 - p) high *= 2;
  for (int i = 0; i < 50; ++i) {
    const double middle = (low + high) / 2;
    (beyond(middle) > 1 - p ? low : high) = middle;
  }
  return high;
}

namespace {

// Tokens made with n sequences, of those states that matter.
struct TokensOf {
  size_t n = 0;
  double share = 0;
};

std::vector<TokensOf> TokenShares(std::span<const double> probability,
                                  std::span<const double> step_s) {
  constexpr double kMatters = 1e-9;
  std::vector<TokensOf> tokens;
  double all = 0;
  for (size_t n = 1; n < probability.size(); ++n) {
    // In a second with n sequences n / step(n) tokens are made.
    const double made = probability[n] * static_cast<double>(n) / step_s[n];
    all += made;
    if (probability[n] > kMatters) tokens.push_back({n, made});
  }
  for (TokensOf& of : tokens) of.share /= all;
  return tokens;
}

double StepsWithin(std::span<const TokensOf> tokens, std::span<const double> step_s, double t,
                   double spread_s) {
  double sum = 0;
  for (const TokensOf& of : tokens) {
    const double deviation_s = spread_s * std::sqrt(static_cast<double>(of.n));
    const double above_s = step_s[of.n] * (1 - 1e-12) - t;
    sum += deviation_s > 0 ? of.share * std::erfc(above_s / deviation_s / std::sqrt(2.0)) / 2
                           : (above_s <= 0 ? of.share : 0);
  }
  return sum;
}

// `after_step`: the share of gaps that begin while a step is under way.
double Within(std::span<const TokensOf> tokens, std::span<const double> step_s, double t,
              double spread_s, double after_step) {
  double within = StepsWithin(tokens, step_s, t, spread_s) * (1 - after_step);
  if (after_step <= 0) return within;
  constexpr int kParts = 5;
  for (int i = 0; i < kParts; ++i) {
    within +=
        StepsWithin(tokens, step_s, t / (1 + (i + 0.5) / kParts), spread_s) * after_step / kParts;
  }
  return within;
}

}  // namespace

double BatchDistribution::GapsWithin(std::span<const double> step_s, double t,
                                     const GapShape& shape) const {
  const std::vector<TokensOf> tokens = TokenShares(probability, step_s);
  // One that finds nobody there need not wait for a step to end.
  return Within(tokens, step_s, t, shape.spread_s, shape.first_share * (1 - probability[0]));
}

double BatchDistribution::GapPercentile(std::span<const double> step_s, double p,
                                        const GapShape& shape) const {
  const std::vector<TokensOf> tokens = TokenShares(probability, step_s);
  if (tokens.empty()) return step_s.size() > 1 ? step_s[1] : 0;
  const double after_step = shape.first_share * (1 - probability[0]);
  const size_t most = tokens.back().n;
  double low = 0;
  double high = 2 * (step_s[most] + 8 * shape.spread_s * std::sqrt(static_cast<double>(most)));
  for (int i = 0; i < 40; ++i) {
    const double middle = (low + high) / 2;
    const bool enough =
        Within(tokens, step_s, middle, shape.spread_s, after_step) >= p * (1 - 1e-9);
    (enough ? high : low) = middle;
  }
  return high;
}

namespace {

// The chain's distribution at one rate (its logarithm), the variance about `widening` times that of
// Poisson arrivals. `log_finished` are the logarithms of what states 1, 2, ... finish a second,
// which grow; the rate is below the last.
std::vector<double> ChainAt(double log_rate, std::span<const double> log_finished,
                            double widening) {
  constexpr double kNothing = 50;  // what weighs exp(-50) of the largest
  std::vector<double> weights(log_finished.size() + 1, 0);
  std::vector<double> logs = {0};
  double largest = 0;
  for (const double log : log_finished) {
    logs.push_back(logs.back() + (log_rate - log) / widening);
    largest = std::max(largest, logs.back());
    if (logs.back() < largest - kNothing) break;  // and falling
  }
  double all = 0;
  for (size_t n = 0; n < logs.size(); ++n) {
    weights[n] = std::exp(logs[n] - largest);
    if (n == log_finished.size()) {
      weights[n] /= 1 - std::exp((log_rate - log_finished.back()) / widening);
    }
    all += weights[n];
  }
  for (double& weight : weights) weight /= all;
  return weights;
}

double FinishedAt(std::span<const double> probability, std::span<const double> finished_per_s) {
  double sum = 0;
  for (size_t n = 1; n < probability.size(); ++n) sum += probability[n] * finished_per_s[n];
  return sum;
}

}  // namespace

BatchDistribution BatchesAt(const Arrivals& arrivals, double mean_output_tokens,
                            std::span<const double> step_s) {
  const size_t limit = step_s.size() - 1;
  std::vector<double> finished_per_s = {0}, log_finished;
  for (size_t n = 1; n <= limit; ++n) {
    finished_per_s.push_back(static_cast<double>(n) / (step_s[n] * mean_output_tokens));
    log_finished.push_back(std::log(finished_per_s[n]));
  }
  BatchDistribution batches;
  batches.stable = arrivals.per_s < finished_per_s[limit];
  if (!batches.stable) {
    batches.probability.assign(limit + 1, 0);
    batches.probability[limit] = 1;
    batches.waiting = 1;
    batches.mean = static_cast<double>(limit);
    return batches;
  }
  const double widening = (1 + arrivals.scv) / 2;
  const double log_rate = std::log(arrivals.per_s);
  batches.probability = ChainAt(log_rate, log_finished, widening);
  if (widening != 1) {
    // As much must finish as arrives: the rate in the formula is the one with which it does.
    double low = log_rate - 100 * widening, high = log_finished.back();
    for (int i = 0; i < 40; ++i) {
      const double middle = (low + high) / 2;
      batches.probability = ChainAt(middle, log_finished, widening);
      (FinishedAt(batches.probability, finished_per_s) < arrivals.per_s ? low : high) = middle;
    }
  }
  for (size_t n = 0; n <= limit; ++n) {
    batches.mean += batches.probability[n] * static_cast<double>(n);
  }
  batches.waiting = batches.probability[limit];
  return batches;
}

}  // namespace baton::planner
