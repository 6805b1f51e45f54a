#pragma once

// Keeps work away from a worker that fails it: a circuit breaker, pure, one a worker.
//
//            kFailuresToOpen in a row            pause over
//   closed ───────────────────────────► open ──────────────────► half open
//      ▲                                  ▲    a failure: twice      │
//      │                                  └──────── the pause ───────┤
//      └────────────────────── a success ────────────────────────────┘
//
// A half-open circuit lets one request through (OnRequest) a pause. Who asks decides what an open
// circuit means; here, placement takes such a worker only where there is no other, and the registry
// opens no circuit when half of a role's workers have open ones: an outage of something that all of
// them share must not drive all work to a few, or nowhere.

#include "common/clock.h"

namespace baton::router {

// Not thread-safe. The time does not go back.
class Circuit {
 public:
  static constexpr int kFailuresToOpen = 3;
  static constexpr Duration kFirstPause = std::chrono::seconds(1);
  static constexpr Duration kLongestPause = std::chrono::seconds(30);

  // `may_open`: whether others of its kind are left to do the work.
  void OnFailure(TimePoint now, bool may_open);
  void OnSuccess() { *this = Circuit(); }
  // A request is sent to it. While half open, no other goes there until a pause is over again.
  void OnRequest(TimePoint now);

  // Open, or half open with a request under way.
  bool IsOpen(TimePoint now) const { return now < open_until_; }

 private:
  int failures_ = 0;
  bool probing_ = false;
  Duration pause_{};  // 0: closed
  TimePoint open_until_;
};

}  // namespace baton::router
