#pragma once

// Which workers served a client's session last: a hint for placement where nothing else decides.

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "router/held_prefix.h"

namespace baton::router {

struct SessionPlaces {
  std::optional<WorkerId> prefill;  // empty: the decode worker prefilled the prompt itself
  std::optional<WorkerId> decode;
};

// Of what a client calls its session (never empty), within its tenant.
uint64_t SessionKey(std::string_view cache_salt, std::string_view session);

// A bounded memory, least recently used out first. Not thread-safe.
class SessionMemory {
 public:
  explicit SessionMemory(size_t capacity) : capacity_(capacity) {}

  SessionPlaces Find(uint64_t key) const;
  void Remember(uint64_t key, const SessionPlaces& places);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    SessionPlaces places;
    std::list<uint64_t>::iterator age;
  };

  const size_t capacity_;
  std::list<uint64_t> ages_;  // keys, most recently used first
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace baton::router
