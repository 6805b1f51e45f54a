#pragma once

// What the caches of a worker hold, written down by those who own the caches, and read by those who
// follow them: first everything, then what changed. Names are 64 bits of a block's hash: enough to
// find who probably holds a prefix, never to share KV.

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "common/block_hash.h"

namespace baton {

enum class CacheTier { kMemory = 0, kDisk = 1 };
inline constexpr size_t kCacheTiers = 2;

// Bits of the block's hash; the lowest three are its level, the next one is 0. A block is of level
// n when its place in the chain (1 for the first) can be halved n times, kMaxKeyLevel at most. So
// who keeps the blocks from level n on keeps every 2^n-th of a chain, and anyone can tell which
// ones that are.
using BlockKey = uint64_t;
inline constexpr int kMaxKeyLevel = 7;
BlockKey KeyOfBlock(const BlockHash& hash, int32_t place);
inline int LevelOfKey(BlockKey key) { return static_cast<int>(key & 7); }

// A key, and whether it is held since (else no longer).
using BlockChange = uint64_t;
inline constexpr BlockChange kHeldBit = 8;
inline BlockKey KeyOfChange(BlockChange change) { return change & ~kHeldBit; }

// Changes in their order, by tier.
struct BlockNews {
  uint64_t number = 0;   // one more than that of the news before it
  bool restart = false;  // all that was told before is void: what is held follows
  std::array<int32_t, kCacheTiers> levels{};  // told are the blocks from this level on
  std::array<std::vector<BlockChange>, kCacheTiers> changes;
};

// Thread-safe. Bounded: at most kMaxKeys blocks a tier are told (every one of a chain, or every
// second, fourth, ... of it), and kMaxRecent changes are kept for a reader that is behind; one that
// is further behind begins anew.
class BlockJournal {
 public:
  static constexpr size_t kMaxKeys = 16'384;
  static constexpr size_t kMaxRecent = 32'768;
  static constexpr size_t kMaxChanges = 4096;  // of one BlockNews

  // That of a cache of so many blocks: the least at which they are kMaxKeys or fewer.
  static int LevelFor(int64_t blocks);

  // Before anything is noted: the caches' sizes.
  void SetBlocks(CacheTier tier, int64_t blocks);

  void Enter(CacheTier tier, const BlockHash& hash, int32_t place);
  // A key that was never entered, or is of a lower level, changes nothing.
  void Leave(CacheTier tier, BlockKey key);
  void LeaveAll(CacheTier tier);

  // Counts changes: who saw it change has something to read.
  uint64_t changes() const;

  // Where one reader is. A new one begins with everything.
  struct Reader {
    bool begun = false;
    uint64_t next_change = 0;                             // to be read
    uint64_t number = 0;                                  // of the last news
    std::array<std::vector<BlockKey>, kCacheTiers> rest;  // of what is held, not read yet
  };
  // The next news; false when there is nothing new.
  bool Read(Reader* reader, BlockNews* news) const;

 private:
  struct Recent {
    CacheTier tier;
    BlockChange change;
  };
  void NoteLocked(CacheTier tier, BlockChange change);
  void BeginLocked(Reader* reader) const;

  mutable std::mutex mutex_;
  std::array<int, kCacheTiers> levels_{};
  std::array<absl::flat_hash_set<BlockKey>, kCacheTiers> held_;
  std::vector<Recent> recent_;  // a ring: change n is at n % kMaxRecent
  uint64_t changes_ = 0;
};

}  // namespace baton
