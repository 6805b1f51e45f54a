#include "router/session_memory.h"

#include <span>

#include "common/checksum.h"

namespace baton::router {

uint64_t SessionKey(std::string_view cache_salt, std::string_view session) {
  const uint64_t parts[2] = {Checksum(std::as_bytes(std::span(cache_salt))),
                             Checksum(std::as_bytes(std::span(session)))};
  return Checksum(std::as_bytes(std::span(parts)));
}

SessionPlaces SessionMemory::Find(uint64_t key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? SessionPlaces{} : found->second.places;
}

void SessionMemory::Remember(uint64_t key, const SessionPlaces& places) {
  if (const auto found = entries_.find(key); found != entries_.end()) {
    ages_.splice(ages_.begin(), ages_, found->second.age);
  } else {
    ages_.push_front(key);
  }
  entries_[key] = {places, ages_.begin()};
  while (entries_.size() > capacity_) {
    entries_.erase(ages_.back());
    ages_.pop_back();
  }
}

}  // namespace baton::router
