#include "router/affinity.h"

#include "common/checksum.h"

namespace baton::router {

std::vector<uint64_t> AffinityKeys(std::string_view cache_salt, std::span<const TokenId> prompt) {
  std::vector<uint64_t> keys;
  uint64_t chain = Checksum(std::as_bytes(std::span(cache_salt.data(), cache_salt.size())));
  size_t begin = 0;
  for (size_t end = kAffinityTokens; end <= prompt.size(); end *= 2) {
    const uint64_t part = Checksum(std::as_bytes(prompt.subspan(begin, end - begin)));
    const uint64_t link[2] = {chain, part};
    chain = Checksum(std::as_bytes(std::span(link)));
    keys.push_back(chain);
    begin = end;
  }
  return keys;
}

Affinity PrefixMemory::Find(std::span<const uint64_t> keys) const {
  for (size_t n = keys.size(); n > 0; --n) {
    const auto found = entries_.find(keys[n - 1]);
    if (found == entries_.end()) continue;
    return {found->second.prefill, found->second.decode,
            static_cast<int32_t>(kAffinityTokens << (n - 1))};
  }
  return {};
}

void PrefixMemory::Remember(std::span<const uint64_t> keys, std::optional<WorkerId> prefill,
                            WorkerId decode) {
  for (const uint64_t key : keys) {
    if (const auto found = entries_.find(key); found != entries_.end()) {
      ages_.splice(ages_.begin(), ages_, found->second.age);
    } else {
      ages_.push_front(key);
    }
    entries_[key] = {prefill, decode, ages_.begin()};
  }
  while (entries_.size() > capacity_) {
    entries_.erase(ages_.back());
    ages_.pop_back();
  }
}

}  // namespace baton::router
