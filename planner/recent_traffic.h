#pragma once

// The requests that came last, as traffic to plan for. Bounded; not thread-safe.

#include <cstdint>
#include <deque>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "planner/workload.h"

namespace baton::planner {

class RecentTraffic {
 public:
  struct Options {
    size_t most_requests = 4096;
    double window_s = 120;  // older ones are forgotten
    // Where so many came within the shorter time, older ones do not count: what changes shows soon.
    size_t enough_requests = 256;
    double short_window_s = 30;
  };
  static constexpr size_t kEnded = 64;
  explicit RecentTraffic(const Options& options) : options_(options) {}

  void OnArrival(double now_s, uint64_t request, int32_t input_tokens);
  void OnFirstToken(uint64_t request, int32_t cached_tokens);
  void OnProgress(uint64_t request, int32_t output_tokens);  // so far
  void OnEnd(uint64_t request, int32_t output_tokens);

  // What came in the window before `now_s`. The rate is up to now, so that a silence counts. A
  // request that has not ended is taken to get at least what it has, and else what one of those got
  // that ended last, whenever they came: where a queue grows, none of the last has begun.
  // FailedPrecondition with the numbers when there is too little to tell: under `least_requests`,
  // or none has ended or got on.
  absl::StatusOr<Workload> Window(double now_s, size_t least_requests) const;

 private:
  struct Entry {
    uint64_t request = 0;
    double arrival_s = 0;
    int32_t input_tokens = 0;
    int32_t cached_tokens = 0;
    int32_t output_tokens = 0;
    bool ended = false;
  };
  Entry* Find(uint64_t request);

  const Options options_;
  std::deque<Entry> entries_;                       // in the order of arrival
  uint64_t first_ = 0;                              // number of entries_.front()
  std::unordered_map<uint64_t, uint64_t> numbers_;  // by request
  std::deque<int32_t> ended_;                       // output tokens of the last that ended
};

}  // namespace baton::planner
