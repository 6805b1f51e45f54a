#include "router/prompts_under_way.h"

#include "common/checksum.h"

namespace baton::router {

std::vector<uint64_t> PrefixKeys(std::string_view cache_salt, std::span<const TokenId> prompt) {
  std::vector<uint64_t> keys;
  uint64_t chain = Checksum(std::as_bytes(std::span(cache_salt)));
  size_t begin = 0;
  for (size_t end = kFirstKeyTokens; end <= prompt.size(); end *= 2) {
    const uint64_t part = Checksum(std::as_bytes(prompt.subspan(begin, end - begin)));
    const uint64_t link[2] = {chain, part};
    chain = Checksum(std::as_bytes(std::span(link)));
    keys.push_back(chain);
    begin = end;
  }
  return keys;
}

PromptsUnderWay::Found PromptsUnderWay::Find(std::span<const uint64_t> keys) const {
  for (size_t n = keys.size(); n > 0; --n) {
    const auto found = entries_.find(keys[n - 1]);
    if (found != entries_.end()) return {found->second.worker, kFirstKeyTokens << (n - 1)};
  }
  return {};
}

void PromptsUnderWay::Begin(std::span<const uint64_t> keys, WorkerId worker) {
  for (const uint64_t key : keys) {
    Entry& entry = entries_[key];
    if (entry.worker != worker) entry = {.worker = worker};
    ++entry.prompts;
  }
}

void PromptsUnderWay::End(std::span<const uint64_t> keys, WorkerId worker) {
  for (const uint64_t key : keys) {
    const auto found = entries_.find(key);
    // Another worker began one since, and it is that one which counts.
    if (found == entries_.end() || found->second.worker != worker) continue;
    if (--found->second.prompts == 0) entries_.erase(found);
  }
}

}  // namespace baton::router
