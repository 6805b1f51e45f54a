#include "worker_common/early_offers.h"

namespace baton::worker_common {

bool EarlyOffers::Add(kv_transfer::OfferInfo offer, TimePoint now) {
  if (expiry_.size() >= capacity_) return false;
  const Attempt attempt = offer.attempt;
  if (!offers_.try_emplace(attempt, std::move(offer)).second) return false;
  expiry_.emplace_back(now + wait_, attempt);
  return true;
}

std::optional<kv_transfer::OfferInfo> EarlyOffers::Take(const Attempt& attempt) {
  const auto found = offers_.find(attempt);
  if (found == offers_.end()) return std::nullopt;
  std::optional<kv_transfer::OfferInfo> offer(std::move(found->second));
  offers_.erase(found);
  std::erase_if(expiry_, [&](const auto& entry) { return entry.second == attempt; });
  return offer;
}

std::vector<Attempt> EarlyOffers::Expire(TimePoint now) {
  std::vector<Attempt> expired;
  while (!expiry_.empty() && expiry_.front().first <= now) {
    expired.push_back(expiry_.front().second);
    offers_.erase(expiry_.front().second);
    expiry_.pop_front();
  }
  return expired;
}

std::vector<Attempt> EarlyOffers::TakeAll() { return Expire(TimePoint::max()); }

}  // namespace baton::worker_common
