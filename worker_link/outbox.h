#pragma once

// What waits to be written to one router while a message is in flight. Events queued meanwhile
// travel together in the next message, so a slow moment makes fewer, larger messages. Not
// thread-safe.

#include <cstddef>
#include <deque>
#include <optional>
#include <vector>

#include "baton/v1/worker.pb.h"
#include "worker_link/commands.h"
#include "worker_link/limits.h"

namespace baton::worker_link {

class Outbox {
 public:
  // False when more than kMaxWaitingBytes wait now.
  bool PushEvents(const std::vector<Event>& events);
  // Replaces a status that has not been taken yet.
  void PushStatus(const WorkerStatus& status) { status_ = status; }
  // Moves the next message into `message`; false when there is none.
  bool Take(v1::WorkerMessage* message);

  size_t waiting_bytes() const { return waiting_bytes_; }

 private:
  struct Batch {
    v1::WorkerMessage message;
    size_t bytes = 0;
  };
  std::deque<Batch> batches_;
  size_t waiting_bytes_ = 0;
  std::optional<WorkerStatus> status_;
};

}  // namespace baton::worker_link
