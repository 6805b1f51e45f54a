#include "engine/block_pool.h"

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"

namespace baton::engine {

BlockTable::BlockTable(BlockTable&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), blocks_(std::exchange(other.blocks_, {})) {}

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  if (this != &other) {
    Clear();
    pool_ = std::exchange(other.pool_, nullptr);
    blocks_ = std::exchange(other.blocks_, {});
  }
  return *this;
}

BlockTable::~BlockTable() { Clear(); }

void BlockTable::Clear() {
  // Last block first, so that eviction shortens a cached chain from its end: a chain without its
  // first block matches nothing.
  while (!blocks_.empty()) {
    pool_->Release(blocks_.back());
    blocks_.pop_back();
  }
  pool_ = nullptr;
}

BlockPool::BlockPool(const kernels::KvLayout& layout, std::span<std::byte> slab,
                     int32_t block_count, bool prefix_cache)
    : layout_(layout), slab_(slab), prefix_cache_(prefix_cache) {
  BATON_CHECK(block_count >= 0, "a pool has no negative number of blocks");
  BATON_CHECK(static_cast<int64_t>(slab.size()) >= block_count * layout.block_bytes(),
              "the slab holds every block");
  blocks_.resize(static_cast<size_t>(block_count));
  free_.reserve(blocks_.size());
  by_hash_.reserve(prefix_cache ? blocks_.size() : 0);
  // The lowest block is handed out first: a fresh sequence is one contiguous run.
  for (int32_t block = block_count - 1; block >= 0; --block) free_.push_back(block);
}

BlockPool::~BlockPool() { BATON_CHECK(counts().held == 0, "tables are dropped before their pool"); }

void BlockPool::NoteIn(BlockJournal* journal) {
  journal_ = journal;
  journal_->SetBlocks(CacheTier::kMemory, static_cast<int64_t>(blocks_.size()));
}

BlockCounts BlockPool::counts() const {
  BlockCounts counts;
  counts.total = static_cast<int32_t>(blocks_.size());
  counts.free = static_cast<int32_t>(free_.size());
  counts.cached = cached_;
  counts.held = held_;
  return counts;
}

absl::Status BlockPool::Extend(BlockTable* table, int32_t count) {
  BATON_CHECK(count >= 0, "a table grows");
  BATON_CHECK(table->pool_ == nullptr || table->pool_ == this, "a table stays with its pool");
  if (count > static_cast<int32_t>(free_.size()) + cached_) {
    return absl::ResourceExhaustedError(
        fmt::format("{} KV blocks wanted, but of {} are {} free, {} cached and {} held", count,
                    blocks_.size(), free_.size(), cached_, held_));
  }
  table->pool_ = this;
  for (int32_t i = 0; i < count; ++i) table->blocks_.push_back(TakeBlock());
  return absl::OkStatus();
}

int32_t BlockPool::TakeBlock() {
  int32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    index = oldest_;
    LeaveCache(index);
    Block& evicted = blocks_[index];
    by_hash_.erase(evicted.hash);
    evicted.published = false;
    if (journal_ != nullptr) {
      journal_->Leave(CacheTier::kMemory, KeyOfBlock(evicted.hash, evicted.place));
    }
  }
  blocks_[index].references = 1;
  ++held_;
  return index;
}

BlockTable BlockPool::Match(std::span<const BlockHash> hashes) {
  BlockTable table;
  table.pool_ = this;
  for (const BlockHash& hash : hashes) {
    const auto found = by_hash_.find(hash);
    if (found == by_hash_.end()) break;
    Block& block = blocks_[found->second];
    if (block.references++ == 0) {
      LeaveCache(found->second);
      ++held_;
    }
    table.blocks_.push_back(found->second);
  }
  return table;
}

int32_t BlockPool::CountMatch(std::span<const BlockHash> hashes) const {
  int32_t count = 0;
  for (const BlockHash& hash : hashes) {
    if (!by_hash_.contains(hash)) break;
    ++count;
  }
  return count;
}

void BlockPool::Publish(const BlockTable& table, int32_t index, const BlockHash& hash) {
  BATON_CHECK(table.pool_ == this && index >= 0 && index < table.size(),
              "only a block of one's own table is published");
  if (!prefix_cache_) return;
  Block& block = blocks_[table.blocks_[index]];
  if (block.published) {
    BATON_CHECK(block.hash == hash, "a published block keeps its name");
    return;
  }
  if (!by_hash_.try_emplace(hash, table.blocks_[index]).second) return;
  block.hash = hash;
  block.place = index + 1;
  block.published = true;
  if (journal_ != nullptr) journal_->Enter(CacheTier::kMemory, hash, block.place);
}

bool BlockPool::Writable(int32_t block) const {
  return blocks_[block].references == 1 && !blocks_[block].published;
}

void BlockPool::Release(int32_t index) {
  Block& block = blocks_[index];
  BATON_CHECK(block.references > 0, "a released block was held");
  if (--block.references > 0) return;
  --held_;
  if (block.published) {
    EnterCache(index);
  } else {
    free_.push_back(index);
  }
}

void BlockPool::EnterCache(int32_t index) {
  Block& block = blocks_[index];
  block.older = newest_;
  block.newer = -1;
  (newest_ < 0 ? oldest_ : blocks_[newest_].newer) = index;
  newest_ = index;
  ++cached_;
}

void BlockPool::LeaveCache(int32_t index) {
  const Block& block = blocks_[index];
  (block.older < 0 ? oldest_ : blocks_[block.older].newer) = block.newer;
  (block.newer < 0 ? newest_ : blocks_[block.newer].older) = block.older;
  --cached_;
}

}  // namespace baton::engine
