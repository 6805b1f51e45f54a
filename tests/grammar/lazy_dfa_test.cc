#include "grammar/lazy_dfa.h"

#include <gtest/gtest.h>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

TEST(LazyDfaTest, EqualFuturesAreOneState) {
  Matching json(R"({"json_object": true})");
  EXPECT_EQ(json.After(R"({"a": 1, "b": ")"), json.After(R"({"zzzz": true, "b": ")"));
  EXPECT_NE(json.After(R"({"a": [")"), json.After(R"({"a": ")"));
}

TEST(LazyDfaTest, AStateThatIsKeptGoesOnAsBefore) {
  Matching json(R"({"json_object": true})");
  const std::string begin = R"({"a": [{"b": [1, "x)";
  const std::string rest = R"(y"]}], "c": null})";
  int32_t state = json.After(begin);
  const size_t before = json.dfa().work();
  int32_t other = json.After(R"({"a)");
  int32_t dead = LazyDfa::kDead;
  json.dfa().KeepOnly(std::vector<int32_t*>{&state, &other, &dead});
  EXPECT_LT(json.dfa().work(), before / 4);
  EXPECT_EQ(dead, LazyDfa::kDead);
  EXPECT_EQ(other, json.After(R"({"a)"));
  for (const char c : rest) {
    ASSERT_NE(state, LazyDfa::kDead);
    state = json.dfa().Next(state, static_cast<uint8_t>(c));
  }
  EXPECT_TRUE(json.dfa().accepts(state));
  EXPECT_FALSE(json.dfa().goes_on(state));
  EXPECT_TRUE(json.Takes("{}"));  // the beginning is still there
}

// A pattern of which hundreds of readings are open at once: not all are followed, but what is taken
// satisfies it.
TEST(LazyDfaTest, TooManyWaysNarrowButDoNotBreak) {
  Matching wide(R"({"regex": "(a|b)*a(a|b){600}c"})");
  EXPECT_FALSE(wide.Takes(std::string(500, 'a') + "c"));
  std::mt19937 random(3);
  for (int i = 0; i < 5; ++i) {
    const std::string text = wide.Random(&random);
    ASSERT_GE(text.size(), 602u);
    EXPECT_EQ(text[text.size() - 602], 'a');
  }
}

}  // namespace
}  // namespace baton::grammar
