#pragma once

// What comes to this router, for who plans for it. Thread-safe.

#include <cstdint>
#include <mutex>

#include "absl/status/statusor.h"
#include "planner/recent_traffic.h"

namespace baton::router {

// Times are seconds of the steady clock.
class TrafficWatch {
 public:
  void OnArrival(double now_s, uint64_t request, int32_t input_tokens) {
    const std::lock_guard lock(mutex_);
    traffic_.OnArrival(now_s, request, input_tokens);
  }
  void OnTokens(uint64_t request, int32_t output_tokens) {  // so far
    const std::lock_guard lock(mutex_);
    traffic_.OnProgress(request, output_tokens);
  }
  void OnFinish(uint64_t request, int32_t output_tokens, int32_t cached_tokens) {
    const std::lock_guard lock(mutex_);
    traffic_.OnFirstToken(request, cached_tokens);
    traffic_.OnEnd(request, output_tokens);
  }
  void OnGone(uint64_t request) {
    const std::lock_guard lock(mutex_);
    traffic_.OnGone(request);
  }
  absl::StatusOr<planner::Workload> Window(double now_s, size_t least_requests,
                                           double since_s) const {
    const std::lock_guard lock(mutex_);
    return traffic_.Window(now_s, least_requests, since_s);
  }
  absl::StatusOr<planner::Workload> Newest(double now_s, size_t least_requests) const {
    const std::lock_guard lock(mutex_);
    return traffic_.Newest(now_s, least_requests);
  }
  planner::RecentTraffic::Waiting WaitingAt(double now_s) const {
    const std::lock_guard lock(mutex_);
    return traffic_.WaitingAt(now_s);
  }

 private:
  mutable std::mutex mutex_;
  planner::RecentTraffic traffic_{{}};
};

}  // namespace baton::router
