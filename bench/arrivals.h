#pragma once

// When the requests of an open load come. Pure: equal options and seeds give equal times.

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::bench {

enum class ArrivalKind {
  kPoisson,   // independent of each other
  kGamma,     // gaps of a gamma distribution: bursts where cv is above 1
  kOnOff,     // Poisson in bursts, silence between them
  kConstant,  // evenly
};
absl::StatusOr<ArrivalKind> ArrivalKindFromName(std::string_view name);

struct ArrivalOptions {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate_per_s = 1;  // on the average
  double cv = 3;          // gamma: standard deviation of the gaps over their mean
  double on_s = 1;        // on-off: mean length of a burst
  double off_s = 4;       // on-off: mean length of the silence after it
  uint64_t seed = 1;
};

// `count` ascending times in seconds from the beginning. InvalidArgument for numbers that make no
// sense.
absl::StatusOr<std::vector<double>> ArrivalTimes(const ArrivalOptions& options, int64_t count);

}  // namespace baton::bench
