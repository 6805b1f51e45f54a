#include "router/retry_budget.h"

namespace baton::router {

RetryBudget::Slot& RetryBudget::SlotOf(TimePoint now) {
  const int64_t number = NumberOf(now);
  Slot& slot = slots_[static_cast<size_t>(number) % kSlots];
  if (slot.number != number) slot = {.number = number};
  return slot;
}

bool RetryBudget::Take(TimePoint now, int64_t live_requests) {
  Slot& current = SlotOf(now);
  const int64_t oldest = current.number - static_cast<int64_t>(kSlots) + 1;
  int64_t requests = live_requests;
  int64_t taken = 0;
  for (const Slot& slot : slots_) {
    if (slot.number < oldest) continue;
    requests += slot.requests;
    taken += slot.taken;
  }
  if (static_cast<double>(taken) >=
      static_cast<double>(kFloor) + share_ * static_cast<double>(requests)) {
    return false;
  }
  ++current.taken;
  return true;
}

}  // namespace baton::router
