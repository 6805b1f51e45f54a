#include "bench/arrivals.h"

#include <fmt/format.h>

#include <random>

#include "common/status_macros.h"

namespace baton::bench {
namespace {

constexpr double kMaxRate = 1e6;

absl::Status Check(const ArrivalOptions& options) {
  if (!(options.rate_per_s > 0 && options.rate_per_s <= kMaxRate)) {
    return absl::InvalidArgumentError(fmt::format(
        "a rate of {} requests a second; it must be in (0, {}]", options.rate_per_s, kMaxRate));
  }
  if (options.kind == ArrivalKind::kGamma && !(options.cv > 0 && options.cv <= 100)) {
    return absl::InvalidArgumentError(
        fmt::format("a coefficient of variation of {}; it must be in (0, 100]", options.cv));
  }
  if (options.kind == ArrivalKind::kOnOff && !(options.on_s > 0 && options.off_s >= 0)) {
    return absl::InvalidArgumentError(
        fmt::format("bursts of {} s and silence of {} s", options.on_s, options.off_s));
  }
  return absl::OkStatus();
}

// Poisson at the rate that gives the average, in bursts whose lengths are exponential.
std::vector<double> OnOffTimes(const ArrivalOptions& options, int64_t count,
                               std::mt19937_64* random) {
  std::exponential_distribution<double> on(1 / options.on_s);
  std::exponential_distribution<double> gap(options.rate_per_s * (options.on_s + options.off_s) /
                                            options.on_s);
  std::vector<double> times;
  double begin = 0;
  while (times.size() < static_cast<size_t>(count)) {
    const double end = begin + on(*random);
    for (double at = begin + gap(*random); at < end && times.size() < static_cast<size_t>(count);
         at += gap(*random)) {
      times.push_back(at);
    }
    begin = end;
    if (options.off_s > 0) {
      begin += std::exponential_distribution<double>(1 / options.off_s)(*random);
    }
  }
  return times;
}

}  // namespace

absl::StatusOr<ArrivalKind> ArrivalKindFromName(std::string_view name) {
  if (name == "poisson") return ArrivalKind::kPoisson;
  if (name == "gamma") return ArrivalKind::kGamma;
  if (name == "on-off") return ArrivalKind::kOnOff;
  if (name == "constant") return ArrivalKind::kConstant;
  return absl::InvalidArgumentError(
      fmt::format("there are no arrivals '{}'; there are poisson, gamma, on-off, constant",
                  name.substr(0, 40)));
}

absl::StatusOr<std::vector<double>> ArrivalTimes(const ArrivalOptions& options, int64_t count) {
  BATON_RETURN_IF_ERROR(Check(options));
  std::mt19937_64 random(options.seed);
  if (options.kind == ArrivalKind::kOnOff) return OnOffTimes(options, count, &random);
  const double shape = 1 / (options.cv * options.cv);
  std::exponential_distribution<double> poisson(options.rate_per_s);
  std::gamma_distribution<double> gamma(shape, 1 / (options.rate_per_s * shape));
  std::vector<double> times;
  times.reserve(static_cast<size_t>(count));
  double at = 0;
  for (int64_t i = 0; i < count; ++i) {
    switch (options.kind) {
      case ArrivalKind::kGamma:
        at += gamma(random);
        break;
      case ArrivalKind::kConstant:
        at += 1 / options.rate_per_s;
        break;
      default:
        at += poisson(random);
        break;
    }
    times.push_back(at);
  }
  return times;
}

}  // namespace baton::bench
