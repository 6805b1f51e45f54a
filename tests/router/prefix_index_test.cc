#include "router/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "tests/router/counting_prompt.h"

namespace baton::router {
namespace {

constexpr int32_t kBlockTokens = 4;
const ChainKind kKind{"model", kBlockTokens};

std::vector<TokenId> Blocks(int blocks, TokenId first = 0) {
  return CountingPrompt(static_cast<size_t>(blocks * kBlockTokens + 1), first);
}

// A worker's side: a journal, read to the index.
class Teller {
 public:
  Teller(PrefixIndex* index, WorkerId id) : index_(index), id_(id) {}

  void Hold(const std::vector<TokenId>& prompt, int from, int blocks,
            CacheTier tier = CacheTier::kMemory, std::string_view salt = "") {
    const auto chain = ChainFullBlocks(ChainRoot(kKind.name, salt), prompt, kBlockTokens);
    for (int i = from; i < blocks; ++i) journal.Enter(tier, chain[static_cast<size_t>(i)], i + 1);
  }
  void Drop(const std::vector<TokenId>& prompt, int from, int blocks) {
    const auto chain = ChainFullBlocks(ChainRoot(kKind.name, ""), prompt, kBlockTokens);
    for (int i = from; i < blocks; ++i) {
      journal.Leave(CacheTier::kMemory, KeyOfBlock(chain[static_cast<size_t>(i)], i + 1));
    }
  }
  bool Tell() {
    BlockNews news;
    bool taken = true;
    while (journal.Read(&reader, &news)) taken = index_->Apply(id_, news) && taken;
    return taken;
  }

  BlockJournal journal;
  BlockJournal::Reader reader;

 private:
  PrefixIndex* index_;
  WorkerId id_;
};

HeldPrefix Find(const PrefixIndex& index, const std::vector<TokenId>& prompt, WorkerId worker,
                std::string_view salt = "") {
  PromptChain chain(kKind, salt, prompt);
  HeldPrefixes held;
  index.Find(chain, &held);
  return worker < held.all().size() ? held.all()[worker] : HeldPrefix{};
}

int32_t HeldBlocks(const PrefixIndex& index, const std::vector<TokenId>& prompt, WorkerId worker) {
  return Find(index, prompt, worker).memory_tokens / kBlockTokens;
}

TEST(PrefixIndexTest, FindsEverybodysLongestPrefix) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(100);
  const int lengths[] = {0, 1, 2, 7, 50, 50, 99, 100, 63};
  std::vector<std::unique_ptr<Teller>> tellers;
  for (WorkerId id = 0; id < std::size(lengths); ++id) {
    tellers.push_back(std::make_unique<Teller>(&index, id));
    tellers.back()->Hold(prompt, 0, lengths[id]);
    tellers.back()->Tell();
  }
  for (WorkerId id = 0; id < std::size(lengths); ++id) {
    EXPECT_EQ(HeldBlocks(index, prompt, id), lengths[id]) << id;
    EXPECT_EQ(HeldBlocks(index, Blocks(40), id), std::min(lengths[id], 40)) << id;
    EXPECT_EQ(HeldBlocks(index, Blocks(40, 1), id), 0);
  }
}

TEST(PrefixIndexTest, FollowsWhatComesAndGoes) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(20);
  Teller a(&index, 0);
  Teller b(&index, 5);
  a.Hold(prompt, 0, 20);
  b.Hold(prompt, 0, 20);
  a.Tell();
  b.Tell();
  EXPECT_EQ(index.entries(), 40u);
  a.Drop(prompt, 8, 20);
  a.Tell();
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 8);
  EXPECT_EQ(HeldBlocks(index, prompt, 5), 20);
  b.Drop(prompt, 0, 20);
  b.Tell();
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 8);
  EXPECT_EQ(HeldBlocks(index, prompt, 5), 0);
  EXPECT_EQ(index.entries(), 8u);
}

TEST(PrefixIndexTest, TiersAndTenantsAreApart) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(20);
  Teller a(&index, 1);
  a.Hold(prompt, 0, 5);
  a.Hold(prompt, 0, 12, CacheTier::kDisk);
  a.Hold(prompt, 0, 20, CacheTier::kMemory, "tenant");
  a.Tell();
  EXPECT_EQ(Find(index, prompt, 1), (HeldPrefix{5 * kBlockTokens, 12 * kBlockTokens}));
  EXPECT_EQ(Find(index, prompt, 1, "tenant"), (HeldPrefix{20 * kBlockTokens, 0}));
  EXPECT_EQ(Find(index, prompt, 1, "other"), HeldPrefix{});
}

TEST(PrefixIndexTest, WhoIsGoneHoldsNothingAndItsMemoryComesBack) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(200);
  Teller a(&index, 0);
  Teller b(&index, 1);
  a.Hold(prompt, 0, 200);
  b.Hold(prompt, 0, 100);
  a.Tell();
  b.Tell();
  index.Drop(0);
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 0);
  EXPECT_EQ(HeldBlocks(index, prompt, 1), 100);
  for (int i = 0; i < 64; ++i) index.Tidy();
  EXPECT_EQ(index.entries(), 100u);
  EXPECT_EQ(HeldBlocks(index, prompt, 1), 100);
  // It comes back with something else.
  a.reader = {};
  a.Drop(prompt, 10, 200);
  a.Tell();
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 10);
  EXPECT_EQ(HeldBlocks(index, prompt, 1), 100);
}

TEST(PrefixIndexTest, AGapIsSeenAndHealedByARestart) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(20);
  Teller a(&index, 0);
  a.Hold(prompt, 0, 10);
  a.Tell();
  a.Hold(prompt, 10, 12);
  BlockNews lost;
  ASSERT_TRUE(a.journal.Read(&a.reader, &lost));
  a.Hold(prompt, 12, 14);
  EXPECT_FALSE(a.Tell());
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 0) << "rather nothing than something wrong";
  a.Hold(prompt, 14, 15);
  EXPECT_TRUE(a.Tell()) << "it was asked already";
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 0);
  a.reader = {};  // what the worker does when it is asked
  EXPECT_TRUE(a.Tell());
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 15);
}

TEST(PrefixIndexTest, ALargeCacheThatTellsEighthsIsFoundBesideASmallOne) {
  PrefixIndex index(1'000'000);
  const std::vector<TokenId> prompt = Blocks(100);
  Teller large(&index, 0);
  Teller small(&index, 1);
  large.journal.SetBlocks(CacheTier::kMemory, 100'000);
  large.Hold(prompt, 0, 95);
  small.Hold(prompt, 0, 13);
  large.Tell();
  small.Tell();
  EXPECT_EQ(HeldBlocks(index, prompt, 0), 88);
  EXPECT_EQ(HeldBlocks(index, prompt, 1), 13);
}

TEST(PrefixIndexTest, AFullIndexKeepsFewerBlocksOfAllChains) {
  constexpr size_t kEntries = 2'000;
  PrefixIndex index(kEntries);
  std::vector<std::unique_ptr<Teller>> tellers;
  for (WorkerId id = 0; id < 100; ++id) {
    tellers.push_back(std::make_unique<Teller>(&index, id));
    tellers.back()->Hold(Blocks(100, static_cast<TokenId>(1000 * id)), 0, 100);
    tellers.back()->Tell();
    EXPECT_LE(index.entries(), kEntries);
  }
  EXPECT_GT(index.entries(), kEntries / 3);
  for (WorkerId id = 0; id < 100; ++id) {
    const int32_t blocks = HeldBlocks(index, Blocks(100, static_cast<TokenId>(1000 * id)), id);
    EXPECT_GE(blocks, 92) << id;
    EXPECT_LE(blocks, 100) << id;
  }
}

TEST(PrefixIndexTest, OneWorkerCannotFillIt) {
  PrefixIndex index(1'000'000);
  BlockNews news{.number = 1, .restart = true};
  for (uint64_t i = 0; i < 3 * BlockJournal::kMaxKeys; ++i) {
    news.changes[0].push_back((i + 1) << 4 | kHeldBit);
  }
  index.Apply(0, news);
  EXPECT_EQ(index.entries(), 2 * BlockJournal::kMaxKeys);
}

// Chains with common beginnings, held to any length, evicted from their ends; against a plain map.
TEST(PrefixIndexTest, AgreesWithAPlainMapUnderChanges) {
  std::mt19937 random(7);
  PrefixIndex index(1'000'000);
  constexpr int kWorkers = 12;
  constexpr int kChains = 20;
  std::vector<std::vector<TokenId>> prompts;
  for (int c = 0; c < kChains; ++c) {
    std::vector<TokenId> prompt = Blocks(64);
    // Every chain leaves the common one at its own place.
    for (size_t t = static_cast<size_t>(c * 12 + 4); t < prompt.size(); ++t) prompt[t] += 1000 * c;
    prompts.push_back(std::move(prompt));
  }
  std::vector<std::unique_ptr<Teller>> tellers;
  for (WorkerId id = 0; id < kWorkers; ++id) {
    tellers.push_back(std::make_unique<Teller>(&index, id));
  }
  // A worker holds one or two chains; a longer one of the same beginning keeps it.
  for (int round = 0; round < 200; ++round) {
    const auto id = static_cast<WorkerId>(random() % kWorkers);
    Teller& teller = *tellers[id];
    const auto& prompt = prompts[random() % kChains];
    const int blocks = static_cast<int>(random() % 64) + 1;
    if (random() % 10 == 0) {
      index.Drop(id);
      teller.reader = {};
      for (const auto& each : prompts) teller.Drop(each, 0, 64);
      index.Tidy();
    }
    teller.Hold(prompt, 0, blocks);
    teller.Tell();
    for (const auto& asked : prompts) {
      PromptChain chain(kKind, "", asked);
      std::set<BlockKey> keys;
      HeldPrefixes held;
      index.Find(chain, &held);
      for (WorkerId w = 0; w < kWorkers; ++w) {
        // The plain way: what the worker's journal says now.
        BlockJournal::Reader reader;
        BlockNews news;
        keys.clear();
        while (tellers[w]->journal.Read(&reader, &news)) {
          for (const BlockChange change : news.changes[0]) keys.insert(KeyOfChange(change));
        }
        int32_t longest = 0;
        while (longest < chain.blocks() && keys.contains(chain.KeyAt(longest + 1))) ++longest;
        const int32_t found =
            w < held.all().size() ? held.all()[w].memory_tokens / kBlockTokens : 0;
        ASSERT_EQ(found, longest) << "round " << round << ", worker " << w;
      }
      if (round % 20 != 0) break;
    }
  }
}

}  // namespace
}  // namespace baton::router
