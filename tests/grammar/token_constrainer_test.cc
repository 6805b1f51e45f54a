#include "grammar/token_constrainer.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

// Every byte, and some longer texts that cross the parts of JSON.
std::vector<std::string> Texts() {
  std::vector<std::string> texts = {"",    "{\"", "\":", "\", \"",   "\"}",  "true", "12",
                                    " \"", "}}",  "[1,", "\xC3\xA9", "name", "ab",   "abab"};
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  return texts;
}

struct Vocabulary {
  std::vector<std::string> texts = Texts();
  std::vector<std::string_view> views{texts.begin(), texts.end()};
};

// The allowed tokens are exactly those after which the text may still be completed.
TEST(TokenConstrainerTest, AllowsExactlyWhatCanBeGoneOnWith) {
  const Vocabulary vocabulary;
  TokenConstrainer constrainer(vocabulary.views, false);
  std::mt19937 random(11);
  for (const char* description :
       {R"({"json_object": true})", R"({"regex": "(ab){2,5}|[^a]x"})",
        R"({"json_schema": {"type": "object", "properties": {"name": {"type": "string"},
            "n": {"type": "integer", "maximum": 12}}, "required": ["name"]}})"}) {
    Matching judge(description);
    for (int round = 0; round < 20; ++round) {
      auto constraint = constrainer.Create(description);
      ASSERT_TRUE(constraint.ok());
      std::vector<TokenId> output;
      std::string text;
      for (int step = 0; step < 40; ++step) {
        const TokenConstraint::Next next = (*constraint)->After(output);
        EXPECT_EQ(next.may_end, judge.Takes(text)) << text;
        if (next.must_end) break;
        const std::vector<uint64_t> last(next.last.begin(), next.last.end());
        std::vector<TokenId> allowed;
        for (size_t t = 0; t < vocabulary.texts.size(); ++t) {
          const auto token = static_cast<TokenId>(t);
          const bool sound = t > 0 && judge.MayBegin(text + vocabulary.texts[t]);
          ASSERT_EQ(HasToken(next.allowed, token), sound) << text << " + " << vocabulary.texts[t];
          if (sound) allowed.push_back(token);
        }
        ASSERT_FALSE(allowed.empty());
        output.push_back(allowed[random() % allowed.size()]);
        text += vocabulary.texts[static_cast<size_t>(output.back())];
        ASSERT_TRUE((*constraint)->Ready(output));
        EXPECT_EQ((*constraint)->After(output).must_end, HasToken(last, output.back())) << text;
      }
    }
  }
}

// A sequence that begins in the middle (a migration) is told the same as one that was there from
// the first token on, whatever was asked before.
TEST(TokenConstrainerTest, IsAFunctionOfTheOutputAlone) {
  const Vocabulary vocabulary;
  TokenConstrainer one(vocabulary.views, false);
  TokenConstrainer other(vocabulary.views, false);
  const std::string description = R"({"regex": "([ab]{1,100}c){1,50}"})";
  const auto begun = one.Create(description);
  std::vector<TokenId> output;
  std::mt19937 random(5);
  for (int step = 0; step < 300; ++step) {
    const auto next = (*begun)->After(output);
    if (next.must_end) break;
    const std::vector<uint64_t> allowed(next.allowed.begin(), next.allowed.end());
    if (step % 37 == 0) {
      const auto late = other.Create(description);
      const auto told = (*late)->After(output);
      EXPECT_TRUE(std::ranges::equal(told.allowed, allowed));
      EXPECT_EQ(told.may_end, next.may_end);
    }
    std::vector<TokenId> choices;
    for (size_t t = 0; t < vocabulary.texts.size(); ++t) {
      if (HasToken(allowed, static_cast<TokenId>(t))) choices.push_back(static_cast<TokenId>(t));
    }
    ASSERT_FALSE(choices.empty());
    output.push_back(choices[random() % choices.size()]);
  }
}

// Far more states than are kept: forgetting changes nothing.
TEST(TokenConstrainerTest, ForgetsAndGoesOn) {
  const Vocabulary vocabulary;
  TokenConstrainer constrainer(vocabulary.views, false);
  const std::string description = R"({"regex": "(a|b)*a(a|b){100}c"})";
  const auto first = constrainer.Create(description);
  const auto second = constrainer.Create(description);
  std::vector<TokenId> output;
  std::mt19937 random(9);
  const auto token_of = [&](std::string_view text) {
    return static_cast<TokenId>(std::ranges::find(vocabulary.texts, text) -
                                vocabulary.texts.begin());
  };
  const TokenId a = token_of("a");
  const TokenId b = token_of("b");
  for (int step = 0; step < 9000; ++step) {
    if (step % 50 == 0) {
      const auto next = (*first)->After(output);
      ASSERT_FALSE(next.must_end);
      EXPECT_TRUE(HasToken(next.allowed, a));
      EXPECT_TRUE(HasToken(next.allowed, b));
      EXPECT_FALSE(HasToken(next.allowed, token_of("name")));
    }
    if (step % 3000 == 2999) {
      EXPECT_TRUE(HasToken((*second)->After(output).allowed, a));
    }
    output.push_back(random() % 2 == 0 ? a : b);
  }
}

TEST(TokenConstrainerTest, AFirstSpaceThatTheTokenizerDropsIsNotPartOfTheText) {
  const std::vector<std::string_view> texts = {" yes", "yes", " ", "y", "es", " es"};
  TokenConstrainer constrainer(texts, true);
  const auto constraint = constrainer.Create(R"({"choice": ["yes"]})");
  ASSERT_TRUE(constraint.ok());
  EXPECT_EQ((*constraint)->After({}).allowed[0], 0b001011u);
  const std::vector<TokenId> whole = {0};
  EXPECT_TRUE((*constraint)->After(whole).must_end);
  const auto again = constrainer.Create(R"({"choice": ["yes"]})");
  const std::vector<TokenId> part = {3};
  EXPECT_EQ((*again)->After(part).allowed[0], 0b010000u);
}

TEST(TokenConstrainerTest, WhatIsUnsoundIsRefused) {
  TokenConstrainer constrainer({"a"}, false);
  EXPECT_TRUE(absl::IsInvalidArgument(constrainer.Create("{").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(constrainer.Create(R"({"regex": "("})").status()));
}

}  // namespace
}  // namespace baton::grammar
