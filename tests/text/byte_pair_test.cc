// Byte-pair merging against the definition: again and again the best pair, leftmost among equals.

#include "text/byte_pair.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace baton::text {
namespace {

using Rules = std::map<std::pair<TokenId, TokenId>, MergeTable::Merge>;

std::vector<TokenId> ByDefinition(const Rules& rules, std::vector<TokenId> tokens) {
  while (true) {
    size_t best = tokens.size();
    MergeTable::Merge merge{MergeTable::kNoMerge, -1};
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = rules.find({tokens[i], tokens[i + 1]});
      if (found == rules.end() || found->second.rank >= merge.rank) continue;
      merge = found->second;
      best = i;
    }
    if (best == tokens.size()) return tokens;
    tokens[best] = merge.merged;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BytePair, AgreesWithTheDefinition) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  MergeScratch scratch;
  for (int round = 0; round < 300; ++round) {
    Rules rules;
    MergeTable table(200);
    TokenId next = 4;
    for (int rule = 0; rule < 60; ++rule) {
      const auto left = static_cast<TokenId>(random() % next);
      const auto right = static_cast<TokenId>(random() % next);
      // Some ranks are shared, as SentencePiece scores may be.
      const MergeTable::Merge merge{static_cast<int32_t>(random() % 50), next};
      if (rules.emplace(std::pair(left, right), merge).second) {
        table.Add(left, right, merge);
        ++next;
      }
    }
    std::vector<TokenId> tokens(random() % 150);  // both sides of the switch to the heap
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 5) - (random() % 20 == 0);
    const std::vector<TokenId> expected = ByDefinition(rules, tokens);
    scratch.Apply(table, tokens);
    ASSERT_EQ(tokens, expected);
  }
}

TEST(BytePair, FirstRankOfAPairCounts) {
  MergeTable table(2);
  table.Add(1, 2, {0, 3});
  table.Add(1, 2, {5, 4});
  EXPECT_EQ(table.Find(1, 2).merged, 3);
  EXPECT_EQ(table.Find(2, 1).rank, MergeTable::kNoMerge);
  EXPECT_EQ(table.Find(-1, -1).rank, MergeTable::kNoMerge);
}

// A million equal letters: quadratic time would not end within the test's time limit.
TEST(BytePair, MillionTokensTakeNearLinearTime) {
  MergeTable table(3);
  table.Add(0, 0, {0, 1});
  table.Add(1, 1, {1, 2});
  table.Add(2, 2, {2, 3});
  std::vector<TokenId> tokens(1'000'003, 0);
  MergeScratch().Apply(table, tokens);
  EXPECT_EQ(tokens.size(), 125'000u + 2);
  EXPECT_EQ(tokens.front(), 3);
  EXPECT_EQ(tokens.back(), 0);
}

}  // namespace
}  // namespace baton::text
