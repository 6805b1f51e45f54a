#pragma once

// Offers that came before their request: a router tells both workers at the same time, so either
// message may be the first here. Bounded in number and time. No I/O, no clock; not thread-safe.

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/clock.h"
#include "kv_transfer/handoff.h"

namespace baton::worker_common {

class EarlyOffers {
 public:
  EarlyOffers(size_t capacity, Duration wait) : capacity_(capacity), wait_(wait) {}

  // False when `capacity` offers wait already, or this attempt's does.
  bool Add(kv_transfer::OfferInfo offer, TimePoint now);
  std::optional<kv_transfer::OfferInfo> Take(const Attempt& attempt);
  // Takes out those that have waited too long.
  std::vector<Attempt> Expire(TimePoint now);
  std::vector<Attempt> TakeAll();

  size_t size() const { return offers_.size(); }

 private:
  const size_t capacity_;
  const Duration wait_;
  absl::flat_hash_map<Attempt, kv_transfer::OfferInfo> offers_;
  std::deque<std::pair<TimePoint, Attempt>> expiry_;  // earliest first; one for each offer
};

}  // namespace baton::worker_common
