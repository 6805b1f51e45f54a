#include "router/affinity.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace baton::router {
namespace {

std::vector<TokenId> Prompt(size_t tokens) {
  std::vector<TokenId> prompt(tokens);
  std::iota(prompt.begin(), prompt.end(), 0);
  return prompt;
}

TEST(AffinityKeysTest, OneKeyForEachDoublingOfThePrefix) {
  EXPECT_EQ(AffinityKeys("", Prompt(63)).size(), 0u);
  EXPECT_EQ(AffinityKeys("", Prompt(64)).size(), 1u);
  EXPECT_EQ(AffinityKeys("", Prompt(127)).size(), 1u);
  EXPECT_EQ(AffinityKeys("", Prompt(1024)).size(), 5u);
}

TEST(AffinityKeysTest, EqualPrefixesShareTheirKeysAndNoMore) {
  std::vector<TokenId> other = Prompt(256);
  other[200] = -1;
  const auto keys = AffinityKeys("", Prompt(256));
  const auto other_keys = AffinityKeys("", other);
  EXPECT_EQ(keys[0], other_keys[0]);
  EXPECT_EQ(keys[1], other_keys[1]);
  EXPECT_NE(keys[2], other_keys[2]);
  EXPECT_NE(AffinityKeys("tenant", Prompt(64)), AffinityKeys("", Prompt(64)));
}

TEST(PrefixMemoryTest, FindsTheLongestPrefixServedBefore) {
  PrefixMemory memory(100);
  memory.Remember(AffinityKeys("", Prompt(64)), std::nullopt, 7);
  memory.Remember(AffinityKeys("", Prompt(300)), 1, 2);
  const Affinity found = memory.Find(AffinityKeys("", Prompt(4096)));
  EXPECT_EQ(found.prefill, 1u);
  EXPECT_EQ(found.decode, 2u);
  EXPECT_EQ(found.matched_tokens, 256);
  EXPECT_EQ(memory.Find(AffinityKeys("other", Prompt(4096))).decode, std::nullopt);
  EXPECT_EQ(memory.Find({}).matched_tokens, 0);
}

TEST(PrefixMemoryTest, ForgetsTheLeastRecentlyUsed) {
  PrefixMemory memory(2);
  const std::vector<uint64_t> a{1}, b{2}, c{3};
  memory.Remember(a, std::nullopt, 10);
  memory.Remember(b, std::nullopt, 11);
  memory.Remember(a, std::nullopt, 12);
  memory.Remember(c, std::nullopt, 13);
  EXPECT_EQ(memory.size(), 2u);
  EXPECT_EQ(memory.Find(a).decode, 12u);
  EXPECT_EQ(memory.Find(b).decode, std::nullopt);
  EXPECT_EQ(memory.Find(c).decode, 13u);
}

}  // namespace
}  // namespace baton::router
