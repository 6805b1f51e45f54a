#include "common/block_journal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace baton {
namespace {

constexpr auto kMemory = static_cast<size_t>(CacheTier::kMemory);
constexpr auto kDisk = static_cast<size_t>(CacheTier::kDisk);

std::vector<BlockHash> Chain(int salt, int blocks) {
  const std::vector<TokenId> tokens(static_cast<size_t>(16 * blocks), 7);
  return ChainFullBlocks(ChainRoot("model", std::to_string(salt)), tokens, 16);
}

// What a reader knows, as a router would.
struct Follower {
  BlockJournal::Reader reader;
  std::set<BlockKey> held[kCacheTiers];
  uint64_t number = 0;
  int restarts = 0;
  size_t most_changes = 0;

  bool ReadOne(const BlockJournal& journal) {
    BlockNews news;
    if (!journal.Read(&reader, &news)) return false;
    EXPECT_EQ(news.number, ++number);
    if (news.restart) {
      ++restarts;
      for (auto& tier : held) tier.clear();
    }
    most_changes = std::max(most_changes, news.changes[0].size() + news.changes[1].size());
    for (size_t tier = 0; tier < kCacheTiers; ++tier) {
      for (const BlockChange change : news.changes[tier]) {
        if ((change & kHeldBit) != 0) {
          held[tier].insert(KeyOfChange(change));
        } else {
          held[tier].erase(change);
        }
      }
    }
    return true;
  }
  void ReadAll(const BlockJournal& journal) {
    while (ReadOne(journal)) {
    }
  }
};

TEST(BlockKeyTest, TellsHowOftenItsPlaceCanBeHalved) {
  const BlockHash hash = Chain(0, 1).front();
  EXPECT_EQ(LevelOfKey(KeyOfBlock(hash, 1)), 0);
  EXPECT_EQ(LevelOfKey(KeyOfBlock(hash, 6)), 1);
  EXPECT_EQ(LevelOfKey(KeyOfBlock(hash, 64)), 6);
  EXPECT_EQ(LevelOfKey(KeyOfBlock(hash, 4096)), kMaxKeyLevel);
  EXPECT_EQ(KeyOfBlock(hash, 1) & kHeldBit, 0u);
  EXPECT_EQ(KeyOfBlock(hash, 1) >> 4, KeyOfBlock(hash, 64) >> 4) << "of the hash alone";
}

TEST(BlockJournalTest, ALaterReaderHearsWhatIsHeldAndThenWhatChanges) {
  BlockJournal journal;
  const std::vector<BlockHash> chain = Chain(0, 4);
  for (int i = 0; i < 3; ++i) journal.Enter(CacheTier::kMemory, chain[i], i + 1);
  journal.Enter(CacheTier::kDisk, chain[0], 1);
  journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[2], 3));
  Follower follower;
  follower.ReadAll(journal);
  EXPECT_EQ(follower.restarts, 1);
  EXPECT_EQ(follower.held[kMemory], (std::set{KeyOfBlock(chain[0], 1), KeyOfBlock(chain[1], 2)}));
  EXPECT_EQ(follower.held[kDisk], std::set{KeyOfBlock(chain[0], 1)});
  const uint64_t before = journal.changes();
  journal.Enter(CacheTier::kMemory, chain[0], 1);
  journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[3], 4));
  EXPECT_EQ(journal.changes(), before) << "neither changed anything";
  EXPECT_FALSE(follower.ReadOne(journal));
  journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[0], 1));
  journal.Enter(CacheTier::kMemory, chain[0], 1);
  journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[1], 2));
  journal.LeaveAll(CacheTier::kDisk);
  follower.ReadAll(journal);
  EXPECT_EQ(follower.restarts, 1);
  EXPECT_EQ(follower.held[kMemory], std::set{KeyOfBlock(chain[0], 1)});
  EXPECT_TRUE(follower.held[kDisk].empty());
}

TEST(BlockJournalTest, AReaderWithNothingToHearIsToldThatOnce) {
  const BlockJournal journal;
  Follower follower;
  EXPECT_TRUE(follower.ReadOne(journal));
  EXPECT_FALSE(follower.ReadOne(journal));
  EXPECT_EQ(follower.restarts, 1);
}

TEST(BlockJournalTest, OneThatIsFarBehindBeginsAnew) {
  BlockJournal journal;
  Follower follower;
  follower.ReadAll(journal);
  const std::vector<BlockHash> chain = Chain(0, 2);
  journal.Enter(CacheTier::kMemory, chain[0], 1);
  for (size_t i = 0; i < BlockJournal::kMaxRecent; ++i) {
    journal.Enter(CacheTier::kMemory, chain[1], 2);
    journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[1], 2));
  }
  follower.ReadAll(journal);
  EXPECT_EQ(follower.restarts, 2);
  EXPECT_EQ(follower.held[kMemory], std::set{KeyOfBlock(chain[0], 1)});
}

// With many keys, readers that begin and read in the middle of changes, and bounded messages.
TEST(BlockJournalTest, EveryReaderEndsWithWhatIsHeld) {
  std::mt19937 random(20);
  BlockJournal journal;
  std::vector<std::pair<BlockHash, int>> blocks;
  for (int salt = 0; salt < 60; ++salt) {
    const std::vector<BlockHash> chain = Chain(salt, 100);
    for (int i = 0; i < 100; ++i) blocks.emplace_back(chain[i], i + 1);
  }
  std::set<BlockKey> truth[kCacheTiers];
  std::vector<Follower> followers(1);
  for (int i = 0; i < 40'000; ++i) {
    const auto& [hash, place] = blocks[random() % blocks.size()];
    const auto tier = static_cast<CacheTier>(random() % kCacheTiers);
    if (random() % 5 < 3) {
      journal.Enter(tier, hash, place);
      truth[static_cast<size_t>(tier)].insert(KeyOfBlock(hash, place));
    } else {
      journal.Leave(tier, KeyOfBlock(hash, place));
      truth[static_cast<size_t>(tier)].erase(KeyOfBlock(hash, place));
    }
    if (i % 10'000 == 5'000) followers.emplace_back();
    if (random() % 100 == 0) followers[random() % followers.size()].ReadOne(journal);
  }
  for (Follower& follower : followers) {
    follower.ReadAll(journal);
    for (size_t tier = 0; tier < kCacheTiers; ++tier) {
      EXPECT_EQ(follower.held[tier], truth[tier]);
    }
    EXPECT_LE(follower.most_changes, BlockJournal::kMaxChanges);
  }
}

TEST(BlockJournalTest, ALargeCacheTellsOneBlockOfSeveral) {
  EXPECT_EQ(BlockJournal::LevelFor(0), 0);
  EXPECT_EQ(BlockJournal::LevelFor(16'384), 0);
  EXPECT_EQ(BlockJournal::LevelFor(16'385), 1);
  EXPECT_EQ(BlockJournal::LevelFor(100'000), 3);
  EXPECT_EQ(BlockJournal::LevelFor(int64_t{1} << 40), kMaxKeyLevel);
  BlockJournal journal;
  journal.SetBlocks(CacheTier::kMemory, 100'000);
  const std::vector<BlockHash> chain = Chain(0, 20);
  for (int i = 0; i < 20; ++i) journal.Enter(CacheTier::kMemory, chain[i], i + 1);
  Follower follower;
  follower.ReadAll(journal);
  EXPECT_EQ(follower.held[kMemory], (std::set{KeyOfBlock(chain[7], 8), KeyOfBlock(chain[15], 16)}));
}

}  // namespace
}  // namespace baton
