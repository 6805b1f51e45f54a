// The pool against an obvious model of itself, and each promise of its header alone.

#include "engine/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace baton::engine {
namespace {

constexpr kernels::KvLayout kLayout{1, 1, 2, 8, kernels::KvDType::kF16};

class BlockPoolTest : public testing::Test {
 protected:
  BlockPool MakePool(int32_t blocks, bool prefix_cache = true) {
    slab_.resize(blocks * kLayout.block_bytes());
    return BlockPool(kLayout, slab_, blocks, prefix_cache);
  }
  std::vector<std::byte> slab_;
};

BlockHash Name(uint32_t number) {
  BlockHash hash{};
  std::memcpy(hash.data(), &number, sizeof number);
  return hash;
}

void ExpectCounts(const BlockPool& pool, int32_t free, int32_t held, int32_t cached) {
  const BlockCounts counts = pool.counts();
  EXPECT_EQ(counts.free, free);
  EXPECT_EQ(counts.held, held);
  EXPECT_EQ(counts.cached, cached);
  EXPECT_EQ(counts.free + counts.held + counts.cached, counts.total);
}

TEST_F(BlockPoolTest, AFreshPoolHandsOutOneContiguousRun) {
  BlockPool pool = MakePool(4);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 3).ok());
  EXPECT_THAT(table.blocks(), testing::ElementsAre(0, 1, 2));
  ExpectCounts(pool, 1, 3, 0);
}

TEST_F(BlockPoolTest, NotesWhatCanBeMatchedUntilItIsEvicted) {
  BlockPool pool = MakePool(4);
  BlockJournal journal;
  pool.NoteIn(&journal);
  const auto noted = [&] {
    std::set<BlockKey> keys;
    BlockJournal::Reader reader;
    BlockNews news;
    while (journal.Read(&reader, &news)) {
      for (const BlockChange change : news.changes[0]) keys.insert(KeyOfChange(change));
    }
    return keys;
  };
  const BlockHash first = Name(16);
  const BlockHash second = Name(32);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 3).ok());
  EXPECT_TRUE(noted().empty());
  pool.Publish(table, 0, first);
  pool.Publish(table, 1, second);
  pool.Publish(table, 1, second);
  const std::set<BlockKey> both = {KeyOfBlock(first, 1), KeyOfBlock(second, 2)};
  EXPECT_EQ(noted(), both) << "held ones can be matched";
  table.Clear();
  EXPECT_EQ(noted(), both);
  BlockTable other;
  ASSERT_TRUE(pool.Extend(&other, 3).ok());
  EXPECT_EQ(noted(), std::set{KeyOfBlock(first, 1)}) << "the chain's end went first";
  ASSERT_TRUE(pool.Extend(&other, 1).ok());
  EXPECT_TRUE(noted().empty());
}

TEST_F(BlockPoolTest, ARefusedExtendChangesNothingAndSaysTheCounts) {
  BlockPool pool = MakePool(4);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 3).ok());
  const absl::Status status = pool.Extend(&table, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::string(status.message()),
            "2 KV blocks wanted, but of 4 are 1 free, 0 cached and 3 held");
  EXPECT_EQ(table.size(), 3);
  ExpectCounts(pool, 1, 3, 0);
}

TEST_F(BlockPoolTest, DroppedTablesGiveTheirBlocksBack) {
  BlockPool pool = MakePool(4);
  {
    BlockTable table;
    ASSERT_TRUE(pool.Extend(&table, 3).ok());
    BlockTable moved = std::move(table);
    EXPECT_EQ(moved.size(), 3);
    EXPECT_EQ(table.size(), 0);
    BlockTable other;
    ASSERT_TRUE(pool.Extend(&other, 1).ok());
    other = std::move(moved);  // releases its own block
    ExpectCounts(pool, 1, 3, 0);
  }
  ExpectCounts(pool, 4, 0, 0);
}

TEST_F(BlockPoolTest, PublishedBlocksAreMatchedInOrderUpToTheFirstMiss) {
  BlockPool pool = MakePool(8);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 4).ok());
  for (const int32_t i : {0, 1, 3}) pool.Publish(table, i, Name(i));
  const std::vector<BlockHash> names = {Name(0), Name(1), Name(2), Name(3)};
  EXPECT_EQ(pool.CountMatch(names), 2);
  const BlockTable shared = pool.Match(names);
  EXPECT_THAT(shared.blocks(), testing::ElementsAre(0, 1));
  ExpectCounts(pool, 4, 4, 0);
  table.Clear();  // block 2 has no name, block 3 is cached, 0 and 1 are still held
  ExpectCounts(pool, 5, 2, 1);
}

TEST_F(BlockPoolTest, CachedBlocksComeBackUntilTheyAreEvicted) {
  BlockPool pool = MakePool(2);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 2).ok());
  pool.Publish(table, 0, Name(0));
  pool.Publish(table, 1, Name(1));
  table.Clear();
  ExpectCounts(pool, 0, 0, 2);
  const std::vector<BlockHash> names = {Name(0), Name(1)};
  EXPECT_EQ(pool.Match(names).size(), 2);
  ExpectCounts(pool, 0, 0, 2);

  // One block is wanted: the end of the chain goes, its beginning stays useful.
  ASSERT_TRUE(pool.Extend(&table, 1).ok());
  ExpectCounts(pool, 0, 1, 1);
  EXPECT_EQ(pool.CountMatch(names), 1);
}

TEST_F(BlockPoolTest, EvictionTakesTheLeastRecentlyUsed) {
  BlockPool pool = MakePool(3);
  for (uint32_t i = 0; i < 3; ++i) {
    BlockTable table;
    ASSERT_TRUE(pool.Extend(&table, 1).ok());
    pool.Publish(table, 0, Name(i));
  }
  const std::vector<BlockHash> oldest = {Name(0)};
  pool.Match(oldest).Clear();  // used again: 1 is now the oldest
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 1).ok());
  EXPECT_EQ(pool.CountMatch(oldest), 1);
  EXPECT_EQ(pool.CountMatch(std::vector<BlockHash>{Name(1)}), 0);
  EXPECT_EQ(pool.CountMatch(std::vector<BlockHash>{Name(2)}), 1);
}

TEST_F(BlockPoolTest, ASecondBlockOfTheSameNameStaysPrivate) {
  BlockPool pool = MakePool(4);
  BlockTable first, second;
  ASSERT_TRUE(pool.Extend(&first, 1).ok());
  ASSERT_TRUE(pool.Extend(&second, 1).ok());
  pool.Publish(first, 0, Name(7));
  pool.Publish(second, 0, Name(7));
  EXPECT_THAT(pool.Match(std::vector<BlockHash>{Name(7)}).blocks(), testing::ElementsAre(0));
  second.Clear();
  ExpectCounts(pool, 3, 1, 0);
  first.Clear();
  ExpectCounts(pool, 3, 0, 1);
}

TEST_F(BlockPoolTest, OnlyAnUnnamedBlockOfOneTableIsWritable) {
  BlockPool pool = MakePool(4);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 2).ok());
  EXPECT_TRUE(pool.Writable(table.blocks()[0]));
  pool.Publish(table, 0, Name(1));
  EXPECT_FALSE(pool.Writable(table.blocks()[0]));
  EXPECT_TRUE(pool.Writable(table.blocks()[1]));
}

TEST_F(BlockPoolTest, WithoutPrefixCacheNothingIsCachedOrMatched) {
  BlockPool pool = MakePool(4, /*prefix_cache=*/false);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 1).ok());
  pool.Publish(table, 0, Name(1));
  EXPECT_EQ(pool.CountMatch(std::vector<BlockHash>{Name(1)}), 0);
  table.Clear();
  ExpectCounts(pool, 4, 0, 0);
}

TEST_F(BlockPoolTest, MisuseIsABug) {
  BlockPool pool = MakePool(2);
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 1).ok());
  EXPECT_DEATH(pool.Publish(table, 1, Name(1)), "one's own table");
  EXPECT_DEATH((void)pool.Extend(&table, -1), "a table grows");
  pool.Publish(table, 0, Name(1));
  EXPECT_DEATH(pool.Publish(table, 0, Name(2)), "keeps its name");
}

// What the pool must be, told with maps: reference counts and names, no lists.
struct SimplePool {
  std::map<int32_t, int32_t> references;  // held blocks
  std::map<int32_t, uint32_t> name;       // published blocks
  std::map<uint32_t, int32_t> block;      // the same, the other way round

  int32_t cached() const {
    return static_cast<int32_t>(std::ranges::count_if(
        name, [&](const auto& entry) { return !references.contains(entry.first); }));
  }
  void Hold(int32_t index) { ++references[index]; }
  void Drop(int32_t index) {
    if (--references[index] == 0) references.erase(index);
  }
};

TEST_F(BlockPoolTest, BlocksBalanceUnderRandomUse) {
  const uint32_t seed = 20240607;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&](size_t limit) { return static_cast<uint32_t>(random() % limit); };
  constexpr int32_t kBlocks = 24;
  constexpr uint32_t kNames = 30;
  BlockPool pool = MakePool(kBlocks);
  SimplePool simple;
  std::vector<BlockTable> tables;

  for (int step = 0; step < 20000; ++step) {
    const uint32_t what = below(10);
    if (what < 4) {  // a new table, or a longer one
      if (tables.empty() || below(2) == 0) tables.emplace_back();
      BlockTable& table = tables[below(tables.size())];
      const int32_t old_size = table.size();
      const int32_t count = static_cast<int32_t>(below(6));
      const auto held = static_cast<int32_t>(simple.references.size());
      const bool ok = pool.Extend(&table, count).ok();
      ASSERT_EQ(ok, count <= kBlocks - held);
      ASSERT_EQ(table.size(), ok ? old_size + count : old_size);
      for (const int32_t index : table.blocks().subspan(old_size)) {
        ASSERT_FALSE(simple.references.contains(index)) << "a held block was given away";
        if (const auto evicted = simple.name.find(index); evicted != simple.name.end()) {
          simple.block.erase(evicted->second);
          simple.name.erase(evicted);
        }
        simple.Hold(index);
      }
    } else if (what < 6 && !tables.empty()) {  // drop a table
      const uint32_t victim = below(tables.size());
      for (const int32_t index : tables[victim].blocks()) simple.Drop(index);
      tables.erase(tables.begin() + victim);
    } else if (what < 8 && !tables.empty()) {  // publish
      const BlockTable& table = tables[below(tables.size())];
      if (table.size() == 0) continue;
      const int32_t position = static_cast<int32_t>(below(table.size()));
      const int32_t index = table.blocks()[position];
      const uint32_t number = below(kNames);
      if (simple.name.contains(index)) continue;
      pool.Publish(table, position, Name(number));
      if (simple.block.try_emplace(number, index).second) simple.name[index] = number;
    } else {  // match
      std::vector<BlockHash> names;
      std::vector<int32_t> expected;
      bool hit = true;
      for (uint32_t i = 0, count = below(5); i < count; ++i) {
        const uint32_t number = below(kNames);
        names.push_back(Name(number));
        const auto found = simple.block.find(number);
        hit = hit && found != simple.block.end();
        if (hit) expected.push_back(found->second);
      }
      ASSERT_EQ(pool.CountMatch(names), static_cast<int32_t>(expected.size()));
      tables.push_back(pool.Match(names));
      ASSERT_THAT(tables.back().blocks(), testing::ElementsAreArray(expected));
      for (const int32_t index : expected) simple.Hold(index);
    }
    const BlockCounts counts = pool.counts();
    ASSERT_EQ(counts.held, static_cast<int32_t>(simple.references.size()));
    ASSERT_EQ(counts.cached, simple.cached());
    ASSERT_EQ(counts.free + counts.held + counts.cached, kBlocks);
  }
  tables.clear();
  EXPECT_EQ(pool.counts().held, 0);
}

}  // namespace
}  // namespace baton::engine
