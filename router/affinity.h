#pragma once

// Remembers which workers served which prompt prefixes lately, so that placement can send a prompt
// to where its prefix is probably still cached.

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/ids.h"

namespace baton::router {

using WorkerId = uint32_t;  // of the registry; never used again for another address

// Keys of a prompt's leading 64, 128, 256, ... tokens (those that it has), shortest first. Equal
// for equal salt and tokens. 64 bits and not forgery-proof: a wrong guess costs a cache miss, no
// more; what KV may be shared is decided by the workers' own hashes.
inline constexpr size_t kAffinityTokens = 64;
std::vector<uint64_t> AffinityKeys(std::string_view cache_salt, std::span<const TokenId> prompt);

struct Affinity {
  std::optional<WorkerId> prefill;
  std::optional<WorkerId> decode;
  int32_t matched_tokens = 0;  // of the prompt, served by them before
};

// A bounded memory, least recently used out first. Not thread-safe.
class PrefixMemory {
 public:
  explicit PrefixMemory(size_t capacity) : capacity_(capacity) {}

  // Who served the longest known prefix.
  Affinity Find(std::span<const uint64_t> keys) const;
  // `prefill` is empty when the decode worker prefilled the prompt itself.
  void Remember(std::span<const uint64_t> keys, std::optional<WorkerId> prefill, WorkerId decode);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::optional<WorkerId> prefill;
    WorkerId decode;
    std::list<uint64_t>::iterator age;
  };

  const size_t capacity_;
  std::list<uint64_t> ages_;  // keys, most recently used first
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace baton::router
