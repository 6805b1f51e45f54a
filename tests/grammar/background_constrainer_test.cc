#include "grammar/background_constrainer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "grammar/token_constrainer.h"
#include "tests/grammar/hostile.h"

namespace baton::grammar {
namespace {

struct Bytes {
  Bytes() {
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    for (const char* text : {"{\"", "\": ", "true", "ab", "abab", "aaaaaaaa"})
      texts.push_back(text);
    views.assign(texts.begin(), texts.end());
  }
  std::vector<std::string> texts;
  std::vector<std::string_view> views;
};

void Await(TokenConstraint& constraint, std::span<const TokenId> output) {
  while (!constraint.Ready(output)) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

// What it says is what is said without a thread, for many sequences at a time; some are dropped in
// the middle of their work.
TEST(BackgroundConstrainerTest, SaysWhatTheOtherSays) {
  const Bytes bytes;
  const std::vector<std::string> descriptions = {R"({"json_object": true})",
                                                 R"({"regex": "(ab|a){2,40}c"})",
                                                 R"({"choice": ["aaaaaaaa", "b"]})"};
  BackgroundConstrainer background(bytes.views, false);
  TokenConstrainer judge(bytes.views, false);
  struct Pair {
    std::unique_ptr<TokenConstraint> asked, judge;
    std::vector<TokenId> output;
  };
  std::vector<Pair> pairs;
  for (int i = 0; i < 12; ++i) {
    const std::string& description = descriptions[static_cast<size_t>(i) % descriptions.size()];
    pairs.push_back({background.Create(description), *judge.Create(description), {}});
  }
  std::mt19937 random(4);
  for (int step = 0; step < 40; ++step) {
    for (Pair& pair : pairs) pair.asked->Ready(pair.output);
    background.Create(R"({"regex": "(a{0,40}b?){0,30}"})")->Ready({});
    for (Pair& pair : pairs) {
      Await(*pair.asked, pair.output);
      ASSERT_TRUE(pair.asked->status().ok());
      const auto said = pair.asked->After(pair.output);
      const auto expected = pair.judge->After(pair.output);
      EXPECT_TRUE(std::ranges::equal(said.allowed, expected.allowed));
      EXPECT_TRUE(std::ranges::equal(said.last, expected.last));
      EXPECT_EQ(said.may_end, expected.may_end);
      EXPECT_EQ(said.must_end, expected.must_end);
      if (said.must_end) continue;
      std::vector<TokenId> allowed;
      for (TokenId t = 0; t < static_cast<TokenId>(bytes.texts.size()); ++t) {
        if (HasToken(said.allowed, t)) allowed.push_back(t);
      }
      ASSERT_FALSE(allowed.empty());
      pair.output.push_back(allowed[random() % allowed.size()]);
    }
  }
}

TEST(BackgroundConstrainerTest, AnUnsoundDescriptionIsSaidOnceItWasLookedAt) {
  const Bytes bytes;
  BackgroundConstrainer background(bytes.views, false);
  const auto constraint = background.Create(R"({"regex": "("})");
  Await(*constraint, {});
  EXPECT_TRUE(absl::IsInvalidArgument(constraint->status()));
}

TEST(BackgroundConstrainerTest, AConstraintMayOutliveIt) {
  const Bytes bytes;
  std::unique_ptr<TokenConstraint> constraint;
  {
    BackgroundConstrainer background(bytes.views, false);
    constraint = background.Create(R"({"json_object": true})");
    Await(*constraint, {});
  }
  EXPECT_TRUE(HasToken(constraint->After({}).allowed, '{'));
  EXPECT_FALSE(constraint->Ready(std::vector<TokenId>{'{'}));
}

// Work is counted, not timed: each hostile constraint is refused, or its states and what is looked
// at for one set of tokens stay within the bounds.
TEST(HostileConstraintsTest, AreRefusedOrBounded) {
  const Bytes bytes;
  int refused = 0;
  for (const HostileConstraint& hostile : HostileConstraints()) {
    SCOPED_TRACE(hostile.name);
    const auto automaton = CompileConstraint(hostile.description);
    if (!automaton.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsInvalidArgument(automaton.status())) << automaton.status();
      continue;
    }
    EXPECT_LE((*automaton)->size(), Automaton::kMaxStates);
    TokenConstrainer constrainer(bytes.views, false);
    const auto constraint = constrainer.Create(hostile.description);
    ASSERT_TRUE(constraint.ok());
    std::vector<TokenId> output;
    std::mt19937 random(6);
    for (int step = 0; step < 6; ++step) {
      const auto next = (*constraint)->After(output);
      if (next.must_end) break;
      std::vector<TokenId> allowed;
      for (TokenId t = 0; t < static_cast<TokenId>(bytes.texts.size()); ++t) {
        if (HasToken(next.allowed, t)) allowed.push_back(t);
      }
      ASSERT_FALSE(allowed.empty());  // a way on remains, however narrow
      output.push_back(allowed[random() % allowed.size()]);
    }
  }
  EXPECT_GT(refused, 3);
  EXPECT_LT(refused, static_cast<int>(HostileConstraints().size()) - 8);
}

}  // namespace
}  // namespace baton::grammar
