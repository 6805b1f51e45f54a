#pragma once

// What reaches a worker's device thread from its router streams and its handoff service.
//
// Bounded: requests by `capacity`, commands about requests (cancels) by kNoticesPerRequest times as
// many. Opened and lost links are as few as connections, and handoff events as few as transfers
// (HandoffOptions bounds them), so these are always taken. Thread-safe.

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "kv_transfer/handoff.h"
#include "worker_link/server.h"

namespace baton::worker_common {

using Input = std::variant<worker_link::LinkInput, kv_transfer::HandoffEvent>;

class InputQueue {
 public:
  static constexpr size_t kNoticesPerRequest = 16;

  explicit InputQueue(size_t capacity) : capacity_(capacity) {}

  // False when a command finds no room.
  bool PushLink(worker_link::LinkInput input);
  void PushHandoff(kv_transfer::HandoffEvent event);
  // Ends a Take that waits, or the next one.
  void Wake();

  // Everything queued, in order; waits up to `timeout` for something. Empty on timeout and Wake.
  std::vector<Input> Take(Duration timeout);

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Input> inputs_;
  size_t requests_ = 0;
  size_t notices_ = 0;
  bool woken_ = false;
};

}  // namespace baton::worker_common
