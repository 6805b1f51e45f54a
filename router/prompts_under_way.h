#pragma once

// Prompts that this router has given to prefill workers and that are not computed yet: what begins
// like one of them will find its KV there when its turn comes. Of those that are computed the
// workers tell themselves (prefix_index.h).

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/ids.h"
#include "router/held_prefix.h"

namespace baton::router {

// Keys of a prompt's leading 64, 128, 256, ... tokens (those that it has), shortest first. Equal
// for equal salt and tokens. 64 bits and not forgery-proof: a wrong guess costs time, no more.
inline constexpr int32_t kFirstKeyTokens = 64;
std::vector<uint64_t> PrefixKeys(std::string_view cache_salt, std::span<const TokenId> prompt);

// As large as the prompts that are begun and not ended. Not thread-safe.
class PromptsUnderWay {
 public:
  struct Found {
    WorkerId worker = 0;
    int32_t tokens = 0;  // of the prompt; 0: nobody
  };
  // Who computes the longest prefix.
  Found Find(std::span<const uint64_t> keys) const;
  // Each Begin has one End, with equal arguments.
  void Begin(std::span<const uint64_t> keys, WorkerId worker);
  void End(std::span<const uint64_t> keys, WorkerId worker);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    WorkerId worker = 0;  // the last that began one
    int32_t prompts = 0;  // there
  };
  absl::flat_hash_map<uint64_t, Entry> entries_;
};

}  // namespace baton::router
