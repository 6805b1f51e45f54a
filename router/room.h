#pragma once

// Whether the fleet can take one more request now, or whether it should wait in the router, where
// it has its fair turn: in a worker it would stand in line behind whoever came first.

#include <cstdint>

#include "router/placement.h"

namespace baton::router {

// A prefill worker takes more while it has less than half a second's work, or kPrefillTokens, or a
// single request: so much that it never waits for the router.
inline constexpr int64_t kPrefillTokens = 4096;
inline constexpr double kPrefillSeconds = 0.5;
inline constexpr int32_t kPrefillRequests = 2;

bool HasRoom(const WorkerSnapshot& worker);

// Looks at one usable worker after the other, until the answer is known.
class FleetRoom {
 public:
  void Add(const WorkerSnapshot& worker);
  // More workers would change nothing.
  bool decided() const { return room_[0] && room_[1]; }
  // True also when no decode worker is usable: what happens then is placement's to say. Without a
  // prefill worker the decode workers alone count.
  bool room() const;

 private:
  bool exists_[2] = {false, false};  // by role
  bool room_[2] = {false, false};
};

}  // namespace baton::router
