// The index against an obvious model of itself, and each promise of its header alone.

#include "kv_disk/slot_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <set>

#include "tests/kv_disk/disk_testing.h"

namespace baton::kv_disk {
namespace {

// Enters the block into the next slot.
int32_t Add(SlotIndex& index, uint32_t name, int32_t previous = SlotIndex::kNone) {
  const auto taken = index.Take();
  EXPECT_TRUE(taken.has_value());
  index.Enter(taken->slot, Name(name), previous);
  return taken->slot;
}

TEST(SlotIndex, HandsOutTheLowestFreeSlotAndThenTheLeastRecentlyUsed) {
  SlotIndex index(3);
  EXPECT_EQ(Add(index, 1), 0);
  EXPECT_EQ(Add(index, 2), 1);
  EXPECT_EQ(Add(index, 3), 2);
  index.Use(0, SlotIndex::kNone);
  const auto taken = index.Take();
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->slot, 1);
  EXPECT_TRUE(taken->evicted);
  EXPECT_FALSE(index.Find(Name(2)).has_value());
  EXPECT_EQ(index.Find(Name(1)), 0);
  EXPECT_EQ(index.size(), 2);
}

TEST(SlotIndex, ATakenSlotIsNeitherFoundNorEvicted) {
  SlotIndex index(1);
  ASSERT_TRUE(index.Take().has_value());
  EXPECT_FALSE(index.Take().has_value());
  index.Forget(0);
  EXPECT_EQ(Add(index, 7), 0);
  EXPECT_EQ(index.Find(Name(7)), 0);
}

TEST(SlotIndex, AChainIsForgottenFromItsEnd) {
  SlotIndex index(6);
  int32_t previous = SlotIndex::kNone;
  for (uint32_t name = 1; name <= 3; ++name) previous = Add(index, name, previous);
  for (uint32_t name = 11; name <= 13; ++name) {
    previous = Add(index, name, name == 11 ? SlotIndex::kNone : previous);
  }
  // The first chain is older as a whole, and each chain's end goes before its beginning.
  for (const uint32_t gone : {3, 2, 1, 13, 12, 11}) {
    EXPECT_TRUE(index.Find(Name(gone)).has_value());
    const auto taken = index.Take();
    ASSERT_TRUE(taken.has_value());
    EXPECT_TRUE(taken->evicted);
    EXPECT_FALSE(index.Find(Name(gone)).has_value()) << gone;
  }
}

// Names from the most to the least recently used.
struct Model {
  struct Entry {
    uint32_t name = 0;
    int32_t slot = 0;
  };
  std::deque<Entry> entries;
  std::set<int32_t> taken, free;

  auto Of(int32_t slot) {
    return std::ranges::find_if(entries, [slot](const Entry& one) { return one.slot == slot; });
  }
  void Put(const Entry& entry, int32_t previous) {
    const auto before = Of(previous);
    entries.insert(before == entries.end() ? entries.begin() : before + 1, entry);
  }
};

TEST(SlotIndex, DoesWhatAnObviousModelDoes) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&random](size_t bound) { return static_cast<uint32_t>(random() % bound); };
  for (int round = 0; round < 200; ++round) {
    const auto slots = static_cast<int32_t>(1 + below(8));
    SlotIndex index(slots);
    Model model;
    for (int32_t slot = 0; slot < slots; ++slot) model.free.insert(slot);
    uint32_t next_name = 0;
    for (int step = 0; step < 200; ++step) {
      const int32_t previous = static_cast<int32_t>(below(static_cast<size_t>(slots) + 1)) - 1;
      const uint32_t action = below(4);
      if (action == 0) {
        const auto taken = index.Take();
        ASSERT_EQ(taken.has_value(), !model.free.empty() || !model.entries.empty());
        if (!taken) continue;
        ASSERT_EQ(taken->evicted, model.free.empty());
        if (taken->evicted) {
          ASSERT_EQ(taken->slot, model.entries.back().slot);
          model.entries.pop_back();
        }
        model.free.erase(taken->slot);
        ASSERT_TRUE(model.taken.insert(taken->slot).second);
      } else if (action == 1 && !model.taken.empty()) {
        const int32_t slot = *model.taken.begin();
        model.taken.erase(slot);
        index.Enter(slot, Name(++next_name), previous);
        model.Put({next_name, slot}, previous);
      } else if (action == 2 && !model.entries.empty()) {
        const Model::Entry used = model.entries[below(model.entries.size())];
        model.entries.erase(model.Of(used.slot));
        index.Use(used.slot, previous);
        model.Put(used, previous);
      } else if (action == 3 && below(3) == 0 && !model.entries.empty()) {
        const Model::Entry gone = model.entries[below(model.entries.size())];
        model.entries.erase(model.Of(gone.slot));
        model.free.insert(gone.slot);
        index.Forget(gone.slot);
      }
      ASSERT_EQ(index.size(), static_cast<int32_t>(model.entries.size()));
      for (uint32_t name = 1; name <= next_name; ++name) {
        const auto known = std::ranges::find(model.entries, name, &Model::Entry::name);
        const auto found = index.Find(Name(name));
        ASSERT_EQ(found.has_value(), known != model.entries.end());
        ASSERT_TRUE(!found || *found == known->slot);
      }
    }
  }
}

}  // namespace
}  // namespace baton::kv_disk
