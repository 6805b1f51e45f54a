#pragma once

// Which slot of the disk cache holds which block, and which one makes room next. Pure: no I/O.
//
// A slot is free, taken (being written) or entered (found by its block's hash). Entered slots are
// in the order of their last use. A block is never more recent than the one before it in its chain,
// so a chain is forgotten from its end: without its first block the others match nothing.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/block_hash.h"

namespace baton::kv_disk {

class SlotIndex {
 public:
  static constexpr int32_t kNone = -1;

  explicit SlotIndex(int32_t slots);

  std::optional<int32_t> Find(const BlockHash& hash) const;

  struct Taken {
    int32_t slot = kNone;
    bool evicted = false;  // an entry made room
  };
  // A free slot, else that of the least recently used entry, which is forgotten. Empty when every
  // slot is taken.
  std::optional<Taken> Take();
  // A taken slot now holds the block, just used. `previous` is the slot of the block before it, or
  // kNone. The hash must not be entered already.
  void Enter(int32_t slot, const BlockHash& hash, int32_t previous);
  // An entered slot was used now.
  void Use(int32_t slot, int32_t previous);
  // A taken or entered slot becomes free.
  void Forget(int32_t slot);

  int32_t size() const { return static_cast<int32_t>(by_hash_.size()); }  // entered
  int32_t slots() const { return static_cast<int32_t>(slots_.size()); }

 private:
  enum class State : uint8_t { kFree, kTaken, kEntered };
  struct Slot {
    State state = State::kFree;
    BlockHash hash{};
    int32_t older = kNone;
    int32_t newer = kNone;
  };
  void Link(int32_t slot, int32_t previous);
  void Unlink(int32_t slot);

  std::vector<Slot> slots_;
  std::vector<int32_t> free_;
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
  absl::flat_hash_map<BlockHash, int32_t, BlockHashHasher> by_hash_;
};

}  // namespace baton::kv_disk
