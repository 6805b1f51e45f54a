#pragma once

// Bounds how much of a router's work is work done again: when many workers fail at once, or a
// request fails every worker that it meets, placing everything again and again would take down what
// is left.

#include <array>
#include <cstdint>

#include "common/clock.h"

namespace baton::router {

// In any kWindow at most kFloor, and `share` of the requests that are live or came in that time,
// are placed again. So every stream of a lost worker may move once, but not all of them for ever.
// The time is an argument and does not go back. Not thread-safe.
class RetryBudget {
 public:
  static constexpr Duration kWindow = std::chrono::seconds(10);
  static constexpr int64_t kFloor = 16;

  explicit RetryBudget(double share) : share_(share) {}

  void OnRequest(TimePoint now) { ++SlotOf(now).requests; }
  // False when the budget is spent.
  bool Take(TimePoint now, int64_t live_requests);

 private:
  static constexpr size_t kSlots = 10;
  struct Slot {
    int64_t number = -1;  // which of all slots since the clock's beginning
    int64_t requests = 0;
    int64_t taken = 0;
  };
  static int64_t NumberOf(TimePoint now) { return now.time_since_epoch() / (kWindow / kSlots); }
  Slot& SlotOf(TimePoint now);

  const double share_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace baton::router
