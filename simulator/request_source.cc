#include "simulator/request_source.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace baton::simulator {
namespace {

constexpr double kMostTokens = 1 << 30;

int32_t Tokens(double value) {
  return static_cast<int32_t>(std::clamp(std::round(value), 1.0, kMostTokens));
}

}  // namespace

SimulatedRequest RequestSource::Take() {
  const size_t size = workload_.requests.size();
  SimulatedRequest out;
  size_t index = 0;
  if (workload_.arrival_s.empty()) {
    now_s_ += BetweenSeconds() / faster_;
    out.arrival_s = now_s_;
    index = static_cast<size_t>(Uniform() * static_cast<double>(size));
  } else {
    index = taken_ % size;
    const double first_s = workload_.arrival_s.front();
    const double round_s = workload_.arrival_s.back() - first_s + 1 / workload_.arrivals.per_s;
    out.prefix_round = static_cast<int64_t>(taken_ / size);
    out.arrival_s =
        (static_cast<double>(out.prefix_round) * round_s + workload_.arrival_s[index] - first_s) /
        faster_;
  }
  ++taken_;
  const planner::RequestLength& length = workload_.requests[index];
  out.input_tokens = Tokens(length.input_tokens);
  out.output_tokens = Tokens(length.output_tokens);
  out.cached_share = length.cached_share;
  if (!workload_.prefix_blocks.empty()) out.prefix = workload_.prefix_blocks[index];
  return out;
}

// In [0, 1), with the same bits on every machine.
double RequestSource::Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

double RequestSource::BetweenSeconds() {
  const double mean_s = 1 / workload_.arrivals.per_s;
  const double scv = workload_.arrivals.scv;
  const double exponential = -std::log1p(-Uniform());
  if (scv <= 1) return mean_s * (1 - std::sqrt(scv) + std::sqrt(scv) * exponential);
  // Two exponentials with balanced means.
  const double p = (1 + std::sqrt((scv - 1) / (scv + 1))) / 2;
  const double branch = Uniform() < p ? p : 1 - p;
  return mean_s * exponential / (2 * branch);
}

}  // namespace baton::simulator
