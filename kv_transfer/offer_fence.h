#pragma once

// What a target remembers about offers it has seen: the newest epoch of a request, and how its
// offer ended. So that a late or repeated message cannot bring a finished attempt back to life, and
// a Grant that comes too late can be told why. Bounded: the oldest are forgotten.

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/ids.h"

namespace baton::kv_transfer {

class OfferFence {
 public:
  static constexpr size_t kRemembered = 16'384;

  OfferFence() { seen_.reserve(kRemembered + 1); }

  // Notes the attempt. False when it, or a later epoch of its request, was noted before.
  bool Admit(const Attempt& attempt) {
    const auto [entry, fresh] = seen_.try_emplace(attempt.request);
    if (!fresh && entry->second.epoch >= attempt.epoch) return false;
    entry->second = {attempt.epoch, absl::OkStatus()};
    if (fresh) {
      order_.push_back(attempt.request);
      if (order_.size() > kRemembered) {
        seen_.erase(order_.front());
        order_.pop_front();
      }
    }
    return true;
  }
  // The newest epoch noted for the request.
  std::optional<uint32_t> Newest(const RequestId& request) const {
    const auto found = seen_.find(request);
    if (found == seen_.end()) return std::nullopt;
    return found->second.epoch;
  }
  void SetEnd(const Attempt& attempt, const absl::Status& why) {
    const auto found = seen_.find(attempt.request);
    if (found != seen_.end() && found->second.epoch == attempt.epoch) found->second.end = why;
  }
  // Why the attempt's offer is over; ok when nothing is known.
  absl::Status EndOf(const Attempt& attempt) const {
    const auto found = seen_.find(attempt.request);
    if (found == seen_.end() || found->second.epoch != attempt.epoch) return absl::OkStatus();
    return found->second.end;
  }

 private:
  struct Seen {
    uint32_t epoch = 0;
    absl::Status end;
  };
  absl::flat_hash_map<RequestId, Seen> seen_;
  std::deque<RequestId> order_;
};

}  // namespace baton::kv_transfer
