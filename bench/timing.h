#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"

namespace baton::bench {

// Asked between measurements: true ends the benchmark. Null: it is never ended.
using StopRequested = std::function<bool()>;

// Cancelled, once a stop was requested.
absl::Status CheckStop(const StopRequested& stop);

// The middle value; the mean of the two in the middle when their number is even. `values` is not
// empty.
double Median(std::vector<double> values);

// The smallest of `values`, which are not empty, that at least `share` of them do not exceed.
double Percentile(std::vector<double> values, double share);

struct Repeats {
  int32_t count = 5;     // measurements, at least 1
  double round_ms = 20;  // calls are repeated until a measurement has taken this long
};

// The median time of one call of `run`, after one call that is not counted. `between` is called
// before each measurement and after the last.
double MedianSeconds(const Repeats& repeats, const std::function<void()>& run,
                     const std::function<void()>& between = nullptr);

}  // namespace baton::bench
