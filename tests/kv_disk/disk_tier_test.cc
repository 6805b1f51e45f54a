// The tier with its thread and a real file.

#include "kv_disk/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <utility>

#include "common/status_macros.h"
#include "tests/common/temp_dir.h"
#include "tests/kv_disk/disk_testing.h"

namespace baton::kv_disk {
namespace {

constexpr Duration kGenerous = std::chrono::seconds(30);

class DiskTierTest : public testing::Test {
 protected:
  // A tier of so many slots.
  std::unique_ptr<DiskTier> Open(int64_t slots, int64_t buffers = 64,
                                 BlockJournal* journal = nullptr) {
    DiskTierOptions options;
    options.journal = journal;
    options.directory = directory_.File("");
    options.name = "p/0";
    options.bytes = 4 * 4096 + slots * (8192 + 64);
    options.block_bytes = kBlockBytes;
    options.identity = "model A";
    options.write_buffer_bytes = buffers * kBlockBytes;
    auto tier = DiskTier::Create(options, [this] {
      const std::lock_guard lock(mutex_);
      ++wakes_;
      changed_.notify_all();
    });
    BATON_CHECK(tier.ok(), tier.status().ToString());
    return *std::move(tier);
  }
  std::string path() const { return directory_.File("p_0.kvcache"); }

  static bool SaveAll(DiskTier& tier, const std::vector<BlockHash>& chain) {
    for (size_t i = 0; i < chain.size(); ++i) {
      if (!tier.Save(chain, i, Content(chain[i]))) return false;
    }
    return true;
  }
  template <typename Predicate>
  static void WaitFor(DiskTier& tier, const char* what, Predicate predicate) {
    const TimePoint deadline = SystemClock().Now() + kGenerous;
    while (!predicate(tier.status())) {
      ASSERT_LT(SystemClock().Now(), deadline) << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  static void WaitForWritten(DiskTier& tier, int64_t blocks) {
    WaitFor(tier, "written", [&](const auto& s) { return s.blocks_written == blocks; });
  }
  // Reads `count` blocks from `first` on, as many as come, and compares each.
  int32_t Get(DiskTier& tier, const std::vector<BlockHash>& chain, size_t first, size_t count) {
    std::vector<std::vector<std::byte>> memory(count, std::vector<std::byte>(kBlockBytes));
    std::vector<std::span<std::byte>> into(memory.begin(), memory.end());
    const ReadId id = tier.StartRead(chain, first, std::move(into));
    std::vector<DiskTier::Finished> finished;
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kGenerous, [&] {
      finished = tier.TakeFinished();
      return !finished.empty();
    }));
    BATON_CHECK(finished.size() == 1 && finished[0].id == id, "one read, told once");
    for (int32_t i = 0; i < finished[0].blocks; ++i) {
      EXPECT_EQ(memory[static_cast<size_t>(i)], Content(chain[first + static_cast<size_t>(i)]));
    }
    return finished[0].blocks;
  }

  test::TempDir directory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int wakes_ = 0;
};

// What the journal says is on disk.
std::set<BlockKey> OnDisk(const BlockJournal& journal) {
  std::set<BlockKey> keys;
  BlockJournal::Reader reader;
  BlockNews news;
  while (journal.Read(&reader, &news)) {
    for (const BlockChange change : news.changes[static_cast<size_t>(CacheTier::kDisk)]) {
      keys.insert(KeyOfChange(change));
    }
  }
  return keys;
}

// Names that are unlike in more than the bits that a key has for the place.
std::vector<BlockHash> SpacedChain(uint32_t first, size_t blocks) {
  std::vector<BlockHash> chain;
  for (size_t i = 0; i < blocks; ++i)
    chain.push_back(Name((first + static_cast<uint32_t>(i)) * 16));
  return chain;
}

std::set<BlockKey> KeysOf(const std::vector<BlockHash>& chain, size_t blocks) {
  std::set<BlockKey> keys;
  for (size_t i = 0; i < blocks; ++i) keys.insert(KeyOfBlock(chain[i], static_cast<int>(i) + 1));
  return keys;
}

TEST_F(DiskTierTest, NotesWhatIsOnDiskWithItsPlaceInTheChain) {
  const auto chain = SpacedChain(100, 6);
  BlockJournal journal;
  {
    const auto tier = Open(10, 64, &journal);
    ASSERT_TRUE(SaveAll(*tier, chain));
    WaitForWritten(*tier, 6);
    EXPECT_EQ(OnDisk(journal), KeysOf(chain, 6));
  }
  EXPECT_TRUE(OnDisk(journal).empty()) << "nobody can read it now";
  const auto tier = Open(10, 64, &journal);
  EXPECT_EQ(OnDisk(journal), KeysOf(chain, 6));
  const auto other = SpacedChain(200, 6);
  ASSERT_TRUE(SaveAll(*tier, other));
  WaitForWritten(*tier, 6);
  std::set<BlockKey> expected = KeysOf(chain, 4);
  expected.merge(KeysOf(other, 6));
  EXPECT_EQ(OnDisk(journal), expected) << "chains are forgotten from their ends";
}

TEST_F(DiskTierTest, ReadsBackWhatWasSavedAlsoAfterARestart) {
  const auto chain = Chain(100, 6);
  {
    const auto tier = Open(10);
    EXPECT_EQ(tier->CountMatch(chain, 0), 0);
    ASSERT_TRUE(SaveAll(*tier, chain));
    WaitForWritten(*tier, 6);
    EXPECT_EQ(tier->CountMatch(chain, 0), 6);
    EXPECT_EQ(tier->CountMatch(chain, 4), 2);
    EXPECT_EQ(tier->CountMatch(Chain(100, 8), 0), 6);
    EXPECT_EQ(tier->CountMatch(Chain(99, 8), 0), 0) << "a chain without its first block";
    EXPECT_EQ(Get(*tier, chain, 2, 3), 3);
    ASSERT_TRUE(SaveAll(*tier, chain)) << "there already";
    const DiskTierStatus status = tier->status();
    EXPECT_EQ(status.blocks, 6);
    EXPECT_EQ(status.blocks_total, 10);
    EXPECT_EQ(status.blocks_written, 6);
    EXPECT_EQ(status.blocks_read, 3);
    EXPECT_EQ(status.blocks_hit, 6 + 2 + 6);
    EXPECT_EQ(status.blocks_missed, 6 + 2 + 8);
  }
  const auto tier = Open(10);
  EXPECT_EQ(tier->status().blocks, 6);
  EXPECT_EQ(Get(*tier, chain, 0, 6), 6);
}

TEST_F(DiskTierTest, WritesWhatWaitsBeforeItEnds) {
  const auto chain = Chain(1, 50);
  ASSERT_TRUE(SaveAll(*Open(60), chain));
  EXPECT_EQ(Open(60)->CountMatch(chain, 0), 50);
}

TEST_F(DiskTierTest, RefusesWhenItsBuffersAreFullAndTakesMoreLater) {
  const auto chain = Chain(1, 200);
  const auto tier = Open(200, 1);
  ASSERT_TRUE(tier->Save(chain, 0, Content(chain[0])));
  WaitForWritten(*tier, 1);
  size_t saved = 1;
  std::vector<std::byte> memory(kBlockBytes);
  {
    // The tier's thread waits for this lock when it tells that the read is finished.
    const std::lock_guard lock(mutex_);
    tier->StartRead(chain, 0, {memory});
    while (saved < chain.size() && tier->Save(chain, saved, Content(chain[saved]))) ++saved;
    EXPECT_LT(saved, chain.size());
  }
  while (saved < chain.size()) {
    if (tier->Save(chain, saved, Content(chain[saved]))) ++saved;
  }
  WaitForWritten(*tier, 200);
  EXPECT_EQ(tier->TakeFinished().size(), 1u);
  EXPECT_EQ(Get(*tier, chain, 0, 200), 200);
  tier->CountDropped(3);
  EXPECT_EQ(tier->status().blocks_dropped, 3);
}

TEST_F(DiskTierTest, TheLeastRecentlyUsedChainMakesRoomFromItsEnd) {
  const auto a = Chain(100, 4), b = Chain(200, 4), c = Chain(300, 3);
  for (const bool restart : {false, true}) {
    std::filesystem::remove(path());
    auto tier = Open(8);
    ASSERT_TRUE(SaveAll(*tier, a) && SaveAll(*tier, b));
    WaitForWritten(*tier, 8);
    EXPECT_EQ(Get(*tier, a, 0, 4), 4);
    int64_t written = 8;
    if (restart) {
      tier.reset();
      tier = Open(8);
      written = 0;
    }
    ASSERT_TRUE(SaveAll(*tier, c));
    WaitForWritten(*tier, written + 3);
    EXPECT_EQ(tier->CountMatch(a, 0), 4);
    EXPECT_EQ(tier->CountMatch(b, 0), 1);
    EXPECT_EQ(tier->CountMatch(c, 0), 3);
    EXPECT_EQ(tier->status().blocks_evicted, 3);
  }
}

TEST_F(DiskTierTest, ADamagedBlockIsAMissAndForgotten) {
  const auto chain = Chain(1, 5);
  ASSERT_TRUE(SaveAll(*Open(8), chain));
  {
    std::fstream stream(path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(2 * 4096 + 2 * 8192 + 77);
    stream.write("damage", 6);
  }
  const auto tier = Open(8);
  EXPECT_EQ(tier->CountMatch(chain, 0), 5);
  EXPECT_EQ(Get(*tier, chain, 0, 5), 2);
  EXPECT_EQ(tier->status().blocks_damaged, 1);
  EXPECT_EQ(tier->CountMatch(chain, 0), 2);
  ASSERT_TRUE(SaveAll(*tier, chain));
  WaitForWritten(*tier, 1);
  EXPECT_EQ(Get(*tier, chain, 0, 5), 5);
}

TEST_F(DiskTierTest, ACancelledReadWritesNothingMoreAndIsNotTold) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto chain = Chain(1, 40);
  const auto tier = Open(40);
  ASSERT_TRUE(SaveAll(*tier, chain));
  WaitForWritten(*tier, 40);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::vector<std::byte>> memory(40, std::vector<std::byte>(kBlockBytes));
    std::vector<std::span<std::byte>> into(memory.begin(), memory.end());
    const ReadId id = tier->StartRead(chain, 0, into);
    const ReadId behind = tier->StartRead(chain, 0, into);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 600));
    EXPECT_LE(tier->CancelRead(behind), 40);
    const int32_t blocks = tier->CancelRead(id);
    for (auto& block : memory) std::ranges::fill(block, std::byte{7});
    EXPECT_TRUE(tier->TakeFinished().empty());
    EXPECT_GE(blocks, 0);
    EXPECT_EQ(Get(*tier, chain, 0, 1), 1) << "the tier is at this one by now";
    for (const auto& block : memory) {
      EXPECT_TRUE(std::ranges::all_of(block, [](std::byte b) { return b == std::byte{7}; }));
    }
  }
}

TEST_F(DiskTierTest, AFullDiskSwitchesItOff) {
  const auto chain = Chain(1, 3), more = Chain(10, 3);
  const auto tier = Open(6);
  ASSERT_TRUE(SaveAll(*tier, chain));
  WaitForWritten(*tier, 3);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 2 * 4096 + 3 * 8192;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_TRUE(SaveAll(*tier, more));
  WaitFor(*tier, "off", [](const auto& s) { return !s.on; });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(tier->CountMatch(chain, 0), 0);
  EXPECT_TRUE(SaveAll(*tier, Chain(1000, 100))) << "nothing waits for a tier that is off";
  EXPECT_EQ(Get(*tier, chain, 0, 3), 0);
}

TEST_F(DiskTierTest, MeasuresLargeReadsAndAgainWhenAsked) {
  const auto chain = Chain(1, 300);
  {
    const auto tier = Open(300);
    for (size_t i = 0; i < chain.size();) {
      if (tier->Save(chain, i, Content(chain[i]))) ++i;
    }
    EXPECT_EQ(tier->status().bytes_per_s, 0) << "nothing was read";
    WaitForWritten(*tier, 300);
    EXPECT_EQ(Get(*tier, chain, 0, 10), 10);
    EXPECT_EQ(tier->status().bytes_per_s, 0) << "too short a read";
    EXPECT_EQ(Get(*tier, chain, 0, 300), 300);
    EXPECT_GT(tier->status().bytes_per_s, 0);
    EXPECT_EQ(tier->bytes_to_read(), 0);
  }
  const auto tier = Open(300);
  WaitFor(*tier, "measured at the start", [](const auto& s) { return s.bytes_per_s > 0; });
  EXPECT_EQ(tier->status().blocks_read, 0);
  tier->MeasureAgain();
}

TEST_F(DiskTierTest, HoldsNothingWhileItDoesNotAnswer) {
  const auto chain = Chain(1, 3);
  const auto tier = Open(6);
  ASSERT_TRUE(SaveAll(*tier, chain));
  WaitForWritten(*tier, 3);
  const auto wait_for_match = [&](int32_t blocks) {
    const TimePoint deadline = SystemClock().Now() + kGenerous;
    while (tier->CountMatch(chain, 0) != blocks) {
      ASSERT_LT(SystemClock().Now(), deadline) << blocks;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  std::vector<std::byte> memory(kBlockBytes);
  {
    // The tier's thread waits for this lock when it tells that the read is finished.
    const std::lock_guard lock(mutex_);
    tier->StartRead(chain, 0, {memory});
    wait_for_match(0);
    const ReadId behind = tier->StartRead(chain, 1, {memory});
    EXPECT_EQ(tier->CancelRead(behind), 0);
  }
  wait_for_match(3);
  EXPECT_EQ(tier->TakeFinished().size(), 1u);
}

// Random saves and reads: what is read is what was saved under that name, and the tier never holds
// more than its slots.
TEST_F(DiskTierTest, NeverGivesABlockAnotherName) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  auto tier = Open(12, 4);
  for (int step = 0; step < 600; ++step) {
    const auto chain = Chain(static_cast<uint32_t>(100 * (random() % 6)), 1 + random() % 6);
    if (random() % 3 > 0) {
      SaveAll(*tier, chain);
    } else if (const int32_t known = tier->CountMatch(chain, 0); known > 0) {
      EXPECT_LE(Get(*tier, chain, 0, static_cast<size_t>(known)), known);
    }
    if (random() % 100 == 0) {
      tier.reset();
      tier = Open(12, 4);
    }
    EXPECT_LE(tier->status().blocks, 12);
  }
}

}  // namespace
}  // namespace baton::kv_disk
