#pragma once

// Which workers hold which prefixes, as the workers themselves say: an index from a block's key to
// those that have it, and the longest prefix of a prompt that each of them has.
//
// Memory is bounded: at most `max_entries` pairs of block and worker, about 30 bytes each. When
// there are more, the index keeps every second block of all chains, then every fourth, and so on
// (common/block_journal.h says what a level is): a prefix is then known to fewer tokens, but still
// known. Workers do the same with what they tell, so a thousand workers of 100,000 blocks make
// 12.5 million entries.

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/block_journal.h"
#include "router/held_prefix.h"
#include "router/prompt_chain.h"

namespace baton::router {

// Thread-safe.
class PrefixIndex {
 public:
  static constexpr size_t kDefaultEntries = size_t{1} << 24;

  explicit PrefixIndex(size_t max_entries) : max_entries_(max_entries) {}

  // What a worker tells. False when something it told before is missing: all that is known of it is
  // forgotten then, and news are taken again from the next restart on.
  bool Apply(WorkerId worker, const BlockNews& news);
  // The worker is gone, with all that it held.
  void Drop(WorkerId worker);
  // Now and then: frees the memory of what was dropped, a little each time.
  void Tidy();

  // Raises `held` to the longest prefix of the prompt that each worker has. Of a prompt that many
  // hold to unlike lengths, lengths in between may be found too short, never too long.
  void Find(PromptChain& chain, HeldPrefixes* held) const;

  size_t entries() const;
  std::string MetricsText() const;  // Prometheus text format

 private:
  static constexpr size_t kShards = 64;
  // A worker's cache of one tier, since its last restart: slot * kCacheTiers + tier.
  using Holder = uint32_t;
  static constexpr Holder kSetBit = Holder{1} << 31;  // a place in `sets` instead

  struct Shard {
    absl::flat_hash_map<BlockKey, Holder> holders;
    std::vector<std::vector<Holder>> sets;  // of two and more, ascending
    std::vector<uint32_t> free_sets;
    int level = 0;  // lower ones are not kept
  };
  struct Slot {
    WorkerId worker = 0;
    bool alive = false;
    std::array<int32_t, kCacheTiers> levels{};
    std::array<size_t, kCacheTiers> entries{};
  };
  struct Feed {
    WorkerId worker = 0;
    uint32_t slot = 0;
    uint64_t number = 0;  // of the last news
  };
  struct Retired {
    uint32_t slot = 0;
    size_t shards_left = kShards;  // that may still name it
  };
  struct Search;

  static size_t ShardOf(BlockKey key) { return (key >> 4) % kShards; }
  bool AliveLocked(Holder holder) const { return slots_[holder / kCacheTiers].alive; }
  void ApplyChangesLocked(const Feed& feed, size_t tier, std::span<const BlockChange> changes);
  void AddLocked(BlockKey key, Holder holder);
  void RemoveLocked(BlockKey key, Holder holder);
  void CountLocked(Holder holder, int by);
  void RetireLocked(WorkerId worker);
  uint32_t NewSlotLocked(WorkerId worker, const BlockNews& news);
  void SweepLocked(Shard& shard);
  void SweepNextLocked();
  void ThinLocked();
  std::span<const Holder> HoldersLocked(BlockKey key) const;

  const size_t max_entries_;
  mutable std::mutex mutex_;
  std::array<Shard, kShards> shards_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<Retired> retired_;
  size_t next_sweep_ = 0;
  absl::flat_hash_map<WorkerId, Feed> feeds_;
  size_t entries_ = 0;
  int level_ = 0;
  std::array<int32_t, kMaxKeyLevel + 1> told_levels_{};  // how many caches tell from each on
  uint64_t gaps_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace baton::router
