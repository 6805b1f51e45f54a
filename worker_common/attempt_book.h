#pragma once

// The attempts that a worker has accepted: whose they are, when they must be over, and which epoch
// of a request is the newest. No I/O, no clock; not thread-safe.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/clock.h"
#include "common/ids.h"
#include "worker_link/server.h"

namespace baton::worker_common {

class AttemptBook {
 public:
  struct Entry {
    worker_link::LinkId link = 0;
    TimePoint received;
    TimePoint deadline;
    bool answered = false;    // its Finished, Prefilled or Failed was sent, or nobody waits for it
    std::string traceparent;  // for log lines; "": not traced
  };
  // Requests of which the newest epoch is remembered after they are over.
  static constexpr size_t kRemembered = 16'384;

  explicit AttemptBook(size_t capacity) : capacity_(capacity) {}

  // Enters an attempt. ResourceExhausted when `capacity` are in; FailedPrecondition when it, or a
  // newer epoch of its request, was entered before; DeadlineExceeded when `timeout` is nothing.
  absl::Status Enter(const Attempt& attempt, worker_link::LinkId link, TimePoint now,
                     Duration timeout);
  // It holds nothing any more.
  void Remove(const Attempt& attempt) { entries_.erase(attempt); }

  // Null when it is not in.
  Entry* Find(const Attempt& attempt);
  // Whether it, or a newer epoch of its request, has been entered: if it is not in, it is over.
  bool WasEntered(const Attempt& attempt) const;

  // Those not answered yet: of older epochs of the same request; of one router; past their
  // deadline.
  std::vector<Attempt> OlderThan(const Attempt& attempt) const;
  std::vector<Attempt> OfLink(worker_link::LinkId link) const;
  std::vector<Attempt> Expired(TimePoint now) const;

  size_t size() const { return entries_.size(); }

 private:
  template <typename Predicate>
  std::vector<Attempt> Unanswered(Predicate predicate) const;
  void RememberEpoch(const Attempt& attempt);

  const size_t capacity_;
  absl::flat_hash_map<Attempt, Entry> entries_;
  absl::flat_hash_map<RequestId, uint32_t> newest_epoch_;
  std::deque<RequestId> remembered_;  // in newest_epoch_, oldest first
};

}  // namespace baton::worker_common
