#include "kv_disk/slot_index.h"

#include "common/status_macros.h"

namespace baton::kv_disk {

SlotIndex::SlotIndex(int32_t slots) : slots_(static_cast<size_t>(slots)) {
  free_.reserve(slots_.size());
  // The lowest slot is handed out first: what is written together lies together.
  for (int32_t slot = slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

std::optional<int32_t> SlotIndex::Find(const BlockHash& hash) const {
  const auto found = by_hash_.find(hash);
  if (found == by_hash_.end()) return std::nullopt;
  return found->second;
}

std::optional<SlotIndex::Taken> SlotIndex::Take() {
  Taken taken;
  if (free_.empty()) {
    if (oldest_ == kNone) return std::nullopt;
    taken.evicted = true;
    Forget(oldest_);
  }
  taken.slot = free_.back();
  free_.pop_back();
  slots_[taken.slot].state = State::kTaken;
  return taken;
}

void SlotIndex::Enter(int32_t slot, const BlockHash& hash, int32_t previous) {
  BATON_CHECK(slots_[slot].state == State::kTaken, "a slot is taken before it is entered");
  BATON_CHECK(by_hash_.try_emplace(hash, slot).second, "a block is entered once");
  slots_[slot].state = State::kEntered;
  slots_[slot].hash = hash;
  Link(slot, previous);
}

void SlotIndex::Use(int32_t slot, int32_t previous) {
  BATON_CHECK(slots_[slot].state == State::kEntered, "only an entry is used");
  Unlink(slot);
  Link(slot, previous);
}

void SlotIndex::Forget(int32_t slot) {
  BATON_CHECK(slots_[slot].state != State::kFree, "a free slot holds nothing to forget");
  if (slots_[slot].state == State::kEntered) {
    by_hash_.erase(slots_[slot].hash);
    Unlink(slot);
  }
  slots_[slot].state = State::kFree;
  free_.push_back(slot);
}

// Just older than `previous`, where that is an entry, else as the newest.
void SlotIndex::Link(int32_t slot, int32_t previous) {
  const bool behind = previous >= 0 && previous < slots() && previous != slot &&
                      slots_[previous].state == State::kEntered;
  const int32_t newer = behind ? previous : kNone;
  const int32_t older = behind ? slots_[previous].older : newest_;
  slots_[slot].newer = newer;
  slots_[slot].older = older;
  (newer == kNone ? newest_ : slots_[newer].older) = slot;
  (older == kNone ? oldest_ : slots_[older].newer) = slot;
}

void SlotIndex::Unlink(int32_t slot) {
  const Slot& gone = slots_[slot];
  (gone.older == kNone ? oldest_ : slots_[gone.older].newer) = gone.newer;
  (gone.newer == kNone ? newest_ : slots_[gone.newer].older) = gone.older;
}

}  // namespace baton::kv_disk
