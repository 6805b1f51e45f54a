#pragma once

// Requests that wait in the router until the fleet can take them, and how fast it takes them.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/fair_queue.h"

namespace baton::router {

// How many requests end a second, lately. Not thread-safe.
class DrainRate {
 public:
  void Count(TimePoint now);
  // How long until `ahead` more have ended; a second before anything has, a minute at most.
  Duration TimeFor(size_t ahead, TimePoint now);

 private:
  void Decay(TimePoint now);

  double weight_ = 0;  // endings, each worth less as it gets older
  std::optional<TimePoint> first_;
  TimePoint last_{};
};

// Thread-safe; takes the time as an argument.
class RequestQueue {
 public:
  // `max_waiting` 0: no limit but the router's own.
  explicit RequestQueue(int32_t max_waiting) : max_waiting_(max_waiting) {}

  // Whether one more may wait: ResourceExhausted, with Retry-After, when the queue is full.
  absl::Status CheckRoom(TimePoint now) const;
  // The refusal of a router that has `running` requests, its limit.
  absl::Status TooMany(size_t running, int32_t limit, TimePoint now) const;

  // ResourceExhausted, and not queued, when it is full, or when the deadline will most likely come
  // before the request's turn.
  absl::Status Push(QueuedRequest request, TimePoint now);
  // A request that runs and is to be placed again: queued in any case.
  void PushAgain(QueuedRequest request);
  std::optional<uint64_t> Pop();
  bool Remove(uint64_t handle);
  std::vector<uint64_t> TakeExpired(TimePoint now);
  // A request that ran has ended.
  void CountEnding(TimePoint now);

  bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }  // without the lock
  std::string MetricsText() const;  // Prometheus text format

 private:
  absl::Status FullLocked(TimePoint now) const;

  const int32_t max_waiting_;
  std::atomic<size_t> size_{0};
  mutable std::mutex mutex_;  // guards the next two
  FairQueue queue_;
  mutable DrainRate rate_;
};

}  // namespace baton::router
