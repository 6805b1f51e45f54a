#include "router/prefix_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::router {
namespace {

// Of one worker and tier: twice what an honest one tells.
constexpr size_t kMaxPerHolder = 2 * BlockJournal::kMaxKeys;
// Looks into the index for one prompt and level, beside those that find the longest prefix.
constexpr int kMaxLooks = 64;
// The index is not held for longer than so many changes take.
constexpr size_t kChangesAtOnce = 256;

}  // namespace

// ---- what workers tell ----

bool PrefixIndex::Apply(WorkerId worker, const BlockNews& news) {
  Feed feed{.worker = worker, .number = news.number};
  {
    const std::lock_guard lock(mutex_);
    SweepNextLocked();
    if (news.restart) {
      RetireLocked(worker);
      feed.slot = NewSlotLocked(worker, news);
      feeds_[worker] = feed;
    } else {
      const auto known = feeds_.find(worker);
      if (known == feeds_.end()) return true;  // a restart was asked for, and is on its way
      if (news.number != known->second.number + 1) {
        RetireLocked(worker);
        ++gaps_;
        return false;
      }
      feed.slot = known->second.slot;
      known->second = feed;
    }
  }
  for (size_t tier = 0; tier < kCacheTiers; ++tier) {
    std::span<const BlockChange> left = news.changes[tier];
    while (!left.empty()) {
      const size_t count = std::min(left.size(), kChangesAtOnce);
      const std::lock_guard lock(mutex_);
      ApplyChangesLocked(feed, tier, left.first(count));
      left = left.subspan(count);
    }
  }
  return true;
}

void PrefixIndex::ApplyChangesLocked(const Feed& feed, size_t tier,
                                     std::span<const BlockChange> changes) {
  const Slot& slot = slots_[feed.slot];
  if (!slot.alive || slot.worker != feed.worker) return;  // dropped meanwhile
  const auto holder = static_cast<Holder>(feed.slot * kCacheTiers + tier);
  for (const BlockChange change : changes) {
    const BlockKey key = KeyOfChange(change);
    if ((change & kHeldBit) == 0) {
      RemoveLocked(key, holder);
    } else if (LevelOfKey(key) >= level_) {
      AddLocked(key, holder);
    }
  }
}

void PrefixIndex::CountLocked(Holder holder, int by) {
  size_t& own = slots_[holder / kCacheTiers].entries[holder % kCacheTiers];
  own = static_cast<size_t>(static_cast<int64_t>(own) + by);
  entries_ = static_cast<size_t>(static_cast<int64_t>(entries_) + by);
}

void PrefixIndex::AddLocked(BlockKey key, Holder holder) {
  if (entries_ >= max_entries_) ThinLocked();
  const Slot& slot = slots_[holder / kCacheTiers];
  if (entries_ >= max_entries_ || slot.entries[holder % kCacheTiers] >= kMaxPerHolder) {
    ++refused_;
    return;
  }
  Shard& shard = shards_[ShardOf(key)];
  const auto [entry, is_new] = shard.holders.try_emplace(key, holder);
  Holder& value = entry->second;
  if (is_new) return CountLocked(holder, 1);
  if ((value & kSetBit) == 0) {
    if (value == holder) return;
    uint32_t place = static_cast<uint32_t>(shard.sets.size());
    if (shard.free_sets.empty()) {
      shard.sets.emplace_back();
    } else {
      place = shard.free_sets.back();
      shard.free_sets.pop_back();
    }
    shard.sets[place] = {std::min(value, holder), std::max(value, holder)};
    value = kSetBit | place;
    return CountLocked(holder, 1);
  }
  std::vector<Holder>& set = shard.sets[value & ~kSetBit];
  const auto at = std::ranges::lower_bound(set, holder);
  if (at != set.end() && *at == holder) return;
  set.insert(at, holder);
  CountLocked(holder, 1);
}

void PrefixIndex::RemoveLocked(BlockKey key, Holder holder) {
  Shard& shard = shards_[ShardOf(key)];
  const auto entry = shard.holders.find(key);
  if (entry == shard.holders.end()) return;
  Holder& value = entry->second;
  if ((value & kSetBit) == 0) {
    if (value != holder) return;
    shard.holders.erase(entry);
    return CountLocked(holder, -1);
  }
  const uint32_t place = value & ~kSetBit;
  std::vector<Holder>& set = shard.sets[place];
  const auto at = std::ranges::lower_bound(set, holder);
  if (at == set.end() || *at != holder) return;
  set.erase(at);
  CountLocked(holder, -1);
  if (set.size() > 1) return;
  value = set.front();
  set = {};
  shard.free_sets.push_back(place);
}

void PrefixIndex::Drop(WorkerId worker) {
  const std::lock_guard lock(mutex_);
  RetireLocked(worker);
}

// Its entries are dead at once, and go when their shard is swept.
void PrefixIndex::RetireLocked(WorkerId worker) {
  const auto feed = feeds_.find(worker);
  if (feed == feeds_.end()) return;
  Slot& slot = slots_[feed->second.slot];
  slot.alive = false;
  for (const int32_t level : slot.levels) --told_levels_[level];
  retired_.push_back({.slot = feed->second.slot});
  feeds_.erase(feed);
}

uint32_t PrefixIndex::NewSlotLocked(WorkerId worker, const BlockNews& news) {
  uint32_t slot = static_cast<uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot] = {.worker = worker, .alive = true, .levels = news.levels};
  for (const int32_t level : news.levels) ++told_levels_[level];
  return slot;
}

// ---- the bound ----

// Drops dead holders, and blocks below the index' level.
void PrefixIndex::SweepLocked(Shard& shard) {
  shard.level = level_;
  absl::erase_if(shard.holders, [&](auto& entry) {
    Holder& value = entry.second;
    const bool below = LevelOfKey(entry.first) < level_;
    const auto gone = [&](Holder holder) {
      if (!below && AliveLocked(holder)) return false;
      CountLocked(holder, -1);
      return true;
    };
    if ((value & kSetBit) == 0) return gone(value);
    const uint32_t place = value & ~kSetBit;
    std::vector<Holder>& set = shard.sets[place];
    std::erase_if(set, gone);
    if (set.size() > 1) return false;
    const bool empty = set.empty();
    if (!empty) value = set.front();
    set = {};
    shard.free_sets.push_back(place);
    return empty;
  });
}

void PrefixIndex::SweepNextLocked() {
  if (retired_.empty()) return;
  SweepLocked(shards_[next_sweep_]);
  next_sweep_ = (next_sweep_ + 1) % kShards;
  std::erase_if(retired_, [this](Retired& retired) {
    if (--retired.shards_left > 0) return false;
    free_slots_.push_back(retired.slot);
    return true;
  });
}

void PrefixIndex::Tidy() {
  const std::lock_guard lock(mutex_);
  SweepNextLocked();
}

// One shard at a time, so that nobody waits for long: first those that may hold lower levels.
void PrefixIndex::ThinLocked() {
  auto shard = std::ranges::find_if(shards_, [this](const Shard& s) { return s.level < level_; });
  if (shard == shards_.end()) {
    if (level_ == kMaxKeyLevel) return;
    ++level_;
    shard = shards_.begin();
  }
  SweepLocked(*shard);
}

// ---- the longest prefix ----

std::span<const PrefixIndex::Holder> PrefixIndex::HoldersLocked(BlockKey key) const {
  const Shard& shard = shards_[ShardOf(key)];
  const auto entry = shard.holders.find(key);
  if (entry == shard.holders.end()) return {};
  if ((entry->second & kSetBit) == 0) return {&entry->second, 1};
  return shard.sets[entry->second & ~kSetBit];
}

// Who holds a block holds, but for rare evictions, those before it: fewer and fewer hold on along
// the chain. So the longest prefix is found by doubling and halving, and everybody's own by halving
// wherever the number of holders changes. Each search is for the caches that are known from one
// level on: they are known by the same blocks.
struct PrefixIndex::Search {
  const PrefixIndex& index;
  PromptChain& chain;
  HeldPrefixes& held;
  int level;
  bool all_count;             // every holder that is known is one that this search is for
  int32_t step = 1 << level;  // between the blocks that are looked at
  int looks = 0;

  std::span<const Holder> At(int32_t n) { return index.HoldersLocked(chain.KeyAt(n * step)); }
  // The slot of a holder that this search is for; null for others.
  const Slot* SlotOf(Holder holder) const {
    const Slot& slot = index.slots_[holder / kCacheTiers];
    const bool mine = std::max(slot.levels[holder % kCacheTiers], index.level_) == level;
    return slot.alive && mine ? &slot : nullptr;
  }
  bool Held(int32_t n) {
    return std::ranges::any_of(At(n), [this](Holder one) { return SlotOf(one) != nullptr; });
  }

  // Steps of the longest prefix that anybody holds.
  int32_t Longest() {
    const int32_t most = chain.blocks() / step;
    int32_t has = 0;
    int32_t next = 1;
    while (next <= most && Held(next)) {
      has = next;
      next = next == most ? most + 1 : std::min(2 * next, most);
    }
    while (next - has > 1 && next <= most) {
      const int32_t middle = has + (next - has) / 2;
      (Held(middle) ? has : next) = middle;
    }
    return has;
  }

  size_t Count(int32_t n) {
    const std::span<const Holder> holders = At(n);
    if (all_count) return holders.size();
    return static_cast<size_t>(
        std::ranges::count_if(holders, [this](Holder one) { return SlotOf(one) != nullptr; }));
  }

  void Raise(int32_t n) {
    const int32_t tokens = n * step * chain.block_tokens();
    for (const Holder holder : At(n)) {
      const Slot* const slot = SlotOf(holder);
      if (slot == nullptr) continue;
      if (static_cast<CacheTier>(holder % kCacheTiers) == CacheTier::kMemory) {
        held.RaiseMemory(slot->worker, tokens);
      } else {
        held.RaiseDisk(slot->worker, tokens);
      }
    }
  }

  // Those whose prefixes end between the two, which so many hold, and at `low`.
  void Between(int32_t low, size_t low_holders, int32_t high, size_t high_holders) {
    if (low_holders == high_holders) return;
    if (high - low == 1 || looks == kMaxLooks) return Raise(low);
    ++looks;
    const int32_t middle = low + (high - low) / 2;
    const size_t holders = Count(middle);
    Between(middle, holders, high, high_holders);
    Between(low, low_holders, middle, holders);
  }
};

void PrefixIndex::Find(PromptChain& chain, HeldPrefixes* held) const {
  const std::lock_guard lock(mutex_);
  const auto caches = static_cast<int32_t>(kCacheTiers * feeds_.size());
  for (int level = level_; level <= kMaxKeyLevel; ++level) {
    // What is told from a lower level on is kept from the index' own.
    const bool own =
        level == level_ && std::any_of(told_levels_.begin(), told_levels_.begin() + level,
                                       [](int32_t told) { return told > 0; });
    if (!own && told_levels_[level] == 0) continue;
    Search search{*this, chain, *held, level, retired_.empty() && told_levels_[level] == caches};
    const int32_t longest = search.Longest();
    if (longest == 0) continue;
    search.Raise(longest);
    if (longest > 1) search.Between(1, search.Count(1), longest, search.Count(longest));
  }
}

size_t PrefixIndex::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

std::string PrefixIndex::MetricsText() const {
  const std::lock_guard lock(mutex_);
  return fmt::format(
      "# HELP baton_prefix_index_entries Cached KV blocks that workers told of, counted at each.\n"
      "# TYPE baton_prefix_index_entries gauge\nbaton_prefix_index_entries {}\n"
      "# HELP baton_prefix_index_workers Workers whose cached KV blocks are known.\n"
      "# TYPE baton_prefix_index_workers gauge\nbaton_prefix_index_workers {}\n"
      "# HELP baton_prefix_index_stride One of so many blocks of a chain is kept: 1 until the "
      "index is full.\n"
      "# TYPE baton_prefix_index_stride gauge\nbaton_prefix_index_stride {}\n"
      "# HELP baton_prefix_index_gaps_total News of a worker that were missing.\n"
      "# TYPE baton_prefix_index_gaps_total counter\nbaton_prefix_index_gaps_total {}\n"
      "# HELP baton_prefix_index_refused_total Blocks that found no place.\n"
      "# TYPE baton_prefix_index_refused_total counter\nbaton_prefix_index_refused_total {}\n",
      entries_, feeds_.size(), 1 << level_, gaps_, refused_);
}

}  // namespace baton::router
