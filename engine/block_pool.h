#pragma once

// Who holds which KV block.
//
// Every block of the slab is in exactly one state:
//   free    nobody's; its bytes mean nothing
//   held    at least one BlockTable refers to it (a running sequence or a transfer)
//   cached  no table refers to it, but it has a published hash: it can be matched, or evicted
// so free + held + cached == total, always. Allocation takes free blocks first, then evicts the
// least recently used cached ones.
//
// A published block is full and immutable; several tables may share it. Only the device thread of a
// worker uses its pool: not thread-safe. A pool allocates memory only when it is made, a table only
// beyond what was reserved for it.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/block_hash.h"
#include "common/block_journal.h"
#include "kernels/kv_layout.h"

namespace baton::engine {

class BlockPool;

// RAII: the blocks of one sequence, in order. Dropping the table releases them (published blocks
// become cached, others free). Movable. The pool must outlive it.
class BlockTable {
 public:
  BlockTable() = default;
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&& other) noexcept;
  ~BlockTable();

  std::span<const int32_t> blocks() const { return blocks_; }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  // Memory for the table of a sequence that will have so many blocks.
  void Reserve(int32_t blocks) { blocks_.reserve(static_cast<size_t>(blocks)); }
  void Clear();

 private:
  friend class BlockPool;
  BlockPool* pool_ = nullptr;
  std::vector<int32_t> blocks_;
};

struct BlockCounts {
  int32_t free = 0;
  int32_t held = 0;
  int32_t cached = 0;
  int32_t total = 0;
};

class BlockPool {
 public:
  // `slab` (of block_count * layout.block_bytes() bytes or more) belongs to the caller and outlives
  // the pool. prefix_cache false: nothing is ever cached or matched.
  BlockPool(const kernels::KvLayout& layout, std::span<std::byte> slab, int32_t block_count,
            bool prefix_cache);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // What is published from now on, and evicted, is noted there. It outlives the pool.
  void NoteIn(BlockJournal* journal);

  const kernels::KvLayout& layout() const { return layout_; }
  std::byte* slab() const { return slab_.data(); }
  BlockCounts counts() const;

  // Appends `count` blocks to `table` (a new table when it is empty), or changes nothing and gives
  // ResourceExhausted with the counts.
  absl::Status Extend(BlockTable* table, int32_t count);

  // The longest run of `hashes`, from the first, that is in the cache, as a table that holds it.
  BlockTable Match(std::span<const BlockHash> hashes);
  // How many of `hashes`, from the first, Match would give. Changes nothing.
  int32_t CountMatch(std::span<const BlockHash> hashes) const;

  // Names block `index` of the table: it is full and will not change. When another block already
  // has this name, that one stays the cached one.
  void Publish(const BlockTable& table, int32_t index, const BlockHash& hash);

  // Whether one table alone holds the block and it has no name: only then may its bytes change.
  bool Writable(int32_t block) const;

 private:
  friend class BlockTable;
  struct Block {
    int32_t references = 0;
    bool published = false;
    BlockHash hash{};
    int32_t place = 0;   // in its chain, from 1
    int32_t older = -1;  // neighbours among the cached blocks
    int32_t newer = -1;
  };
  int32_t TakeBlock();
  void Release(int32_t block);
  void EnterCache(int32_t block);
  void LeaveCache(int32_t block);

  kernels::KvLayout layout_;
  std::span<std::byte> slab_;
  bool prefix_cache_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;
  int32_t held_ = 0;
  int32_t cached_ = 0;
  int32_t oldest_ = -1;  // of the cached blocks, by last use
  int32_t newest_ = -1;
  BlockJournal* journal_ = nullptr;
  absl::flat_hash_map<BlockHash, int32_t, BlockHashHasher> by_hash_;
};

}  // namespace baton::engine
