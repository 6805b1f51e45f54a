#pragma once

// The requests that came last, as traffic to plan for. Bounded; not thread-safe.

#include <cstdint>
#include <deque>
#include <limits>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "planner/answer_lengths.h"
#include "planner/workload.h"

namespace baton::planner {

class RecentTraffic {
 public:
  struct Options {
    size_t most_requests = 16384;
    double window_s = 120;  // older ones are forgotten
    // Where so many came within the shorter time, older ones do not count: what changes shows soon.
    size_t enough_requests = 256;
    double short_window_s = 30;
    // Of Newest: that many, and those that came within that time.
    size_t newest_requests = 32;
    double newest_s = 4;
  };
  static constexpr size_t kEnded = 128;
  static constexpr double kForever = std::numeric_limits<double>::infinity();
  explicit RecentTraffic(const Options& options) : options_(options) {}

  void OnArrival(double now_s, uint64_t request, int32_t input_tokens);
  void OnFirstToken(uint64_t request, int32_t cached_tokens);
  void OnProgress(uint64_t request, int32_t output_tokens);  // so far
  void OnEnd(uint64_t request, int32_t output_tokens);
  // It ended without an answer: an error, or its client left. Nothing after OnEnd.
  void OnGone(uint64_t request);

  // What came in the window before `now_s`, and not before `since_s`. The rate is up to now, so
  // that a silence counts. A request that has not ended is taken to get what answer_lengths.h
  // expects of it, by those that came with it and those that ended last, whenever they came.
  // FailedPrecondition with the numbers when there is too little to tell: under `least_requests`,
  // or none has ended or got on.
  absl::StatusOr<Workload> Window(double now_s, size_t least_requests,
                                  double since_s = -kForever) const;
  // Likewise what came last.
  absl::StatusOr<Workload> Newest(double now_s, size_t least_requests) const;

  // Requests of the window without a token yet.
  struct Waiting {
    int64_t requests = 0;
    double longest_s = 0;
  };
  Waiting WaitingAt(double now_s) const;

 private:
  struct Entry {
    uint64_t request = 0;
    double arrival_s = 0;
    int32_t input_tokens = 0;
    int32_t cached_tokens = 0;
    int32_t output_tokens = 0;
    bool ended = false;
  };
  struct Ended {
    int32_t input_tokens = 0;  // 0: not known any more
    int32_t output_tokens = 0;
  };
  Entry* Find(uint64_t request);
  AnswerLengths LengthsOf(size_t first) const;
  absl::StatusOr<Workload> From(size_t first, double now_s, size_t least_requests) const;

  const Options options_;
  std::deque<Entry> entries_;                       // in the order of arrival
  uint64_t first_ = 0;                              // number of entries_.front()
  std::unordered_map<uint64_t, uint64_t> numbers_;  // by request
  std::deque<Ended> ended_;                         // the last that did
};

}  // namespace baton::planner
