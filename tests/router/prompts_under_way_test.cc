#include "router/prompts_under_way.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/router/counting_prompt.h"

namespace baton::router {
namespace {

TEST(PrefixKeysTest, OneKeyForEachDoublingOfThePrefix) {
  EXPECT_EQ(PrefixKeys("", CountingPrompt(63)).size(), 0u);
  EXPECT_EQ(PrefixKeys("", CountingPrompt(64)).size(), 1u);
  EXPECT_EQ(PrefixKeys("", CountingPrompt(127)).size(), 1u);
  EXPECT_EQ(PrefixKeys("", CountingPrompt(1024)).size(), 5u);
}

TEST(PrefixKeysTest, EqualPrefixesShareTheirKeysAndNoMore) {
  std::vector<TokenId> other = CountingPrompt(256);
  other[200] = -1;
  const auto keys = PrefixKeys("", CountingPrompt(256));
  const auto other_keys = PrefixKeys("", other);
  EXPECT_EQ(keys[0], other_keys[0]);
  EXPECT_EQ(keys[1], other_keys[1]);
  EXPECT_NE(keys[2], other_keys[2]);
  EXPECT_NE(PrefixKeys("tenant", CountingPrompt(64)), PrefixKeys("", CountingPrompt(64)));
}

TEST(PromptsUnderWayTest, FindsTheLongestUntilTheLastEnds) {
  PromptsUnderWay under_way;
  const auto shorter = PrefixKeys("", CountingPrompt(64));
  const auto longer = PrefixKeys("", CountingPrompt(300));
  const auto wanted = PrefixKeys("", CountingPrompt(4096));
  EXPECT_EQ(under_way.Find(wanted).tokens, 0);
  under_way.Begin(longer, 3);
  EXPECT_EQ(under_way.Find(wanted).worker, 3u);
  EXPECT_EQ(under_way.Find(wanted).tokens, 256);
  EXPECT_EQ(under_way.Find(shorter).tokens, 64);
  under_way.Begin(longer, 3);
  under_way.End(longer, 3);
  EXPECT_EQ(under_way.Find(wanted).tokens, 256) << "one of two goes on";
  under_way.End(longer, 3);
  EXPECT_EQ(under_way.Find(wanted).tokens, 0);
  EXPECT_EQ(under_way.size(), 0u);
}

TEST(PromptsUnderWayTest, TheLastWorkerCounts) {
  PromptsUnderWay under_way;
  const std::vector<uint64_t> keys = {1};
  under_way.Begin(keys, 5);
  under_way.Begin(keys, 6);
  EXPECT_EQ(under_way.Find(keys).worker, 6u);
  under_way.End(keys, 5);
  EXPECT_EQ(under_way.Find(keys).worker, 6u);
  under_way.End(keys, 6);
  EXPECT_EQ(under_way.size(), 0u);
}

}  // namespace
}  // namespace baton::router
