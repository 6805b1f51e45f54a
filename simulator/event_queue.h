#pragma once

// What happens next in a simulation: by time, and within a moment in the order in which it was
// said.

#include <cstdint>
#include <functional>
#include <queue>
#include <tuple>
#include <vector>

namespace baton::simulator {

enum class EventKind : uint8_t {
  kArrival,
  kPrefixHere,   // fetched from another prefill worker
  kPrefillStep,  // ends
  kFirstToken,
  kKvHere,
  kDecodeStep,  // ends
  kControl,
  kMove,  // the grace of a change of role is over
};

struct Event {
  double at_s = 0;
  int64_t order = 0;
  EventKind kind = EventKind::kArrival;
  int64_t subject = 0;  // worker or request
  bool operator>(const Event& other) const {
    return std::tie(at_s, order) > std::tie(other.at_s, other.order);
  }
};

class EventQueue {
 public:
  bool empty() const { return events_.empty(); }
  void Push(double at_s, EventKind kind, int64_t subject) {
    events_.push({.at_s = at_s, .order = order_++, .kind = kind, .subject = subject});
  }
  Event Pop() {
    const Event event = events_.top();
    events_.pop();
    return event;
  }

 private:
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  int64_t order_ = 0;
};

}  // namespace baton::simulator
