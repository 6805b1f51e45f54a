#include "simulator/prefix_cache.h"

namespace baton::simulator {

uint64_t PrefixCache::KeyOf(int64_t block, int64_t round) {
  return static_cast<uint64_t>(block) + static_cast<uint64_t>(round) * 0x9E3779B97F4A7C15;
}

size_t PrefixCache::Match(std::span<const int64_t> blocks, int64_t round) {
  size_t hits = 0;
  for (; hits < blocks.size(); ++hits) {
    const auto found = where_.find(KeyOf(blocks[hits], round));
    if (found == where_.end()) break;
    order_.splice(order_.begin(), order_, found->second);
  }
  return hits;
}

void PrefixCache::Put(std::span<const int64_t> blocks, int64_t round, size_t capacity) {
  // Backwards, so that a prompt's first blocks stay longest.
  for (size_t i = blocks.size(); i-- > 0;) {
    const uint64_t key = KeyOf(blocks[i], round);
    if (const auto found = where_.find(key); found != where_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      continue;
    }
    order_.push_front(key);
    where_[key] = order_.begin();
    changes_.added.push_back(key);
  }
  while (order_.size() > capacity) {
    changes_.dropped.push_back(order_.back());
    where_.erase(order_.back());
    order_.pop_back();
  }
}

}  // namespace baton::simulator
