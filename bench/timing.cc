#include "bench/timing.h"

#include <algorithm>
#include <cmath>

#include "common/clock.h"
#include "common/status_macros.h"

namespace baton::bench {

absl::Status CheckStop(const StopRequested& stop) {
  if (stop && stop()) return absl::CancelledError("interrupted");
  return absl::OkStatus();
}

double Median(std::vector<double> values) {
  BATON_CHECK(!values.empty(), "a median is of something");
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double Percentile(std::vector<double> values, double share) {
  BATON_CHECK(!values.empty(), "a percentile is of something");
  std::ranges::sort(values);
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

double MedianSeconds(const Repeats& repeats, const std::function<void()>& run,
                     const std::function<void()>& between) {
  run();
  std::vector<double> seconds;
  for (int32_t i = 0; i < std::max(repeats.count, 1); ++i) {
    if (between) between();
    const TimePoint start = SystemClock().Now();
    int64_t calls = 0;
    double elapsed = 0;
    do {
      run();
      ++calls;
      elapsed = Seconds(SystemClock().Now() - start);
    } while (elapsed * 1e3 < repeats.round_ms);
    seconds.push_back(elapsed / static_cast<double>(calls));
  }
  if (between) between();
  return Median(std::move(seconds));
}

}  // namespace baton::bench
