#include "common/block_journal.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace baton {

BlockKey KeyOfBlock(const BlockHash& hash, int32_t place) {
  BlockKey key = 0;
  std::memcpy(&key, hash.data(), sizeof key);
  const int level = std::min(std::countr_zero(static_cast<uint32_t>(place)), kMaxKeyLevel);
  return (key & ~BlockKey{15}) | static_cast<BlockKey>(level);
}

int BlockJournal::LevelFor(int64_t blocks) {
  int level = 0;
  while (level < kMaxKeyLevel && (blocks >> level) > static_cast<int64_t>(kMaxKeys)) ++level;
  return level;
}

void BlockJournal::SetBlocks(CacheTier tier, int64_t blocks) {
  const std::lock_guard lock(mutex_);
  const int level = levels_[static_cast<size_t>(tier)] = LevelFor(blocks);
  // Steps do not allocate.
  held_[static_cast<size_t>(tier)].reserve(
      std::min(static_cast<size_t>(blocks >> level), kMaxKeys));
  recent_.reserve(kMaxRecent);
}

void BlockJournal::NoteLocked(CacheTier tier, BlockChange change) {
  const Recent recent{tier, change};
  if (recent_.size() < kMaxRecent) {
    recent_.push_back(recent);
  } else {
    recent_[changes_ % kMaxRecent] = recent;
  }
  ++changes_;
}

void BlockJournal::Enter(CacheTier tier, const BlockHash& hash, int32_t place) {
  const BlockKey key = KeyOfBlock(hash, place);
  const std::lock_guard lock(mutex_);
  absl::flat_hash_set<BlockKey>& held = held_[static_cast<size_t>(tier)];
  if (LevelOfKey(key) < levels_[static_cast<size_t>(tier)]) return;
  // At the highest level a very large cache may have more: those are not told.
  if (held.size() < kMaxKeys && held.insert(key).second) NoteLocked(tier, key | kHeldBit);
}

void BlockJournal::Leave(CacheTier tier, BlockKey key) {
  const std::lock_guard lock(mutex_);
  if (held_[static_cast<size_t>(tier)].erase(key) > 0) NoteLocked(tier, key);
}

void BlockJournal::LeaveAll(CacheTier tier) {
  const std::lock_guard lock(mutex_);
  absl::flat_hash_set<BlockKey>& held = held_[static_cast<size_t>(tier)];
  for (const BlockKey key : held) NoteLocked(tier, key);
  held.clear();
}

uint64_t BlockJournal::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

void BlockJournal::BeginLocked(Reader* reader) const {
  for (size_t tier = 0; tier < kCacheTiers; ++tier) {
    reader->rest[tier].assign(held_[tier].begin(), held_[tier].end());
  }
  reader->begun = true;
  reader->next_change = changes_;
}

bool BlockJournal::Read(Reader* reader, BlockNews* news) const {
  const std::lock_guard lock(mutex_);
  *news = BlockNews();
  // What is held goes out as it was at the beginning, then what changed since.
  news->restart = !reader->begun || changes_ - reader->next_change > kMaxRecent;
  if (news->restart) BeginLocked(reader);
  size_t left = kMaxChanges;
  for (size_t tier = 0; tier < kCacheTiers; ++tier) {
    news->levels[tier] = levels_[tier];
    std::vector<BlockKey>& rest = reader->rest[tier];
    for (; left > 0 && !rest.empty(); --left, rest.pop_back()) {
      news->changes[tier].push_back(rest.back() | kHeldBit);
    }
    if (rest.empty()) rest.shrink_to_fit();
  }
  for (; left > 0 && reader->next_change < changes_; --left, ++reader->next_change) {
    const Recent& recent = recent_[reader->next_change % kMaxRecent];
    news->changes[static_cast<size_t>(recent.tier)].push_back(recent.change);
  }
  if (!news->restart && left == kMaxChanges) return false;
  news->number = ++reader->number;
  return true;
}

}  // namespace baton
