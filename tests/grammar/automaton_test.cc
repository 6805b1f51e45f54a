#include "grammar/automaton.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar/lazy_dfa.h"

namespace baton::grammar {
namespace {

bool Takes(const std::shared_ptr<const Automaton>& automaton, std::string_view text) {
  LazyDfa dfa(automaton);
  int32_t state = dfa.begin();
  for (const char c : text) {
    state = dfa.Next(state, static_cast<uint8_t>(c));
    if (state == LazyDfa::kDead) return false;
  }
  return dfa.accepts(state);
}

TEST(AutomatonTest, RulesThatCallThemselvesCountBrackets) {
  Grammar grammar;
  const RuleId rule = grammar.DeclareRule();
  grammar.DefineRule(rule, grammar.Choice({grammar.Bytes("x"),
                                           grammar.Sequence({grammar.Bytes("("), grammar.Call(rule),
                                                             grammar.Bytes(")")})}));
  const auto automaton = Automaton::Create(grammar, rule);
  ASSERT_TRUE(automaton.ok()) << automaton.status();
  EXPECT_TRUE(Takes(*automaton, "x"));
  EXPECT_TRUE(Takes(*automaton, "((x))"));
  EXPECT_FALSE(Takes(*automaton, "((x)"));
  EXPECT_FALSE(Takes(*automaton, "(x))"));
  const std::string deepest(Automaton::kMaxDepth, '(');
  EXPECT_TRUE(Takes(*automaton, deepest + "x" + std::string(deepest.size(), ')')));
  EXPECT_FALSE(Takes(*automaton, deepest + "(x"));
}

// At the bound only what can still be completed may begin.
TEST(AutomatonTest, NothingBeginsThatCouldNotBeCompleted) {
  Grammar grammar;
  const RuleId rule = grammar.DeclareRule();
  const ExpressionId three = grammar.CallTo(grammar.CallTo(grammar.CallTo(grammar.Bytes("3"))));
  grammar.DefineRule(
      rule, grammar.Choice({grammar.Bytes("x"),
                            grammar.Sequence({grammar.Bytes("("), grammar.Call(rule), three})}));
  const auto automaton = Automaton::Create(grammar, rule);
  ASSERT_TRUE(automaton.ok());
  // Every bracket that may open needs three calls at its end.
  const int most = Automaton::kMaxDepth - 2;
  LazyDfa dfa(*automaton);
  int32_t state = dfa.begin();
  int opened = 0;
  while (dfa.Next(state, '(') != LazyDfa::kDead) {
    state = dfa.Next(state, '(');
    ++opened;
  }
  EXPECT_EQ(opened, most);
  state = dfa.Next(state, 'x');
  for (int i = 0; i < opened; ++i) {
    ASSERT_NE(state, LazyDfa::kDead);
    state = dfa.Next(state, '3');
  }
  EXPECT_TRUE(dfa.accepts(state));
}

TEST(AutomatonTest, RefusesWhatNothingSatisfies) {
  Grammar grammar;
  const RuleId rule = grammar.DeclareRule();
  grammar.DefineRule(rule, grammar.Sequence({grammar.Bytes("("), grammar.Call(rule)}));
  const auto endless = Automaton::Create(grammar, rule);
  EXPECT_THAT(std::string(endless.status().message()),
              testing::HasSubstr("no text satisfies the constraint"));
}

TEST(AutomatonTest, RefusesLeftRecursionAlsoBehindWhatMayBeEmpty) {
  for (const bool hidden : {false, true}) {
    Grammar grammar;
    const RuleId rule = grammar.DeclareRule();
    std::vector<ExpressionId> parts;
    if (hidden) parts.push_back(grammar.CallTo(grammar.Optional(grammar.Bytes(" "))));
    parts.push_back(grammar.Call(rule));
    parts.push_back(grammar.Bytes("y"));
    grammar.DefineRule(rule, grammar.Choice({grammar.Bytes("x"), grammar.Sequence(parts)}));
    const auto left = Automaton::Create(grammar, rule);
    EXPECT_THAT(std::string(left.status().message()), testing::HasSubstr("refers to itself"));
  }
}

TEST(AutomatonTest, TooManyStatesAreRefused) {
  Grammar grammar;
  const ExpressionId thousand = grammar.Repeat(grammar.Bytes("ab"), 1000, 1000);
  const RuleId rule = grammar.DeclareRule();
  grammar.DefineRule(rule, grammar.Repeat(thousand, 1000, 1000));
  const auto large = Automaton::Create(grammar, rule);
  EXPECT_THAT(std::string(large.status().message()), testing::HasSubstr("60000 states"));
}

TEST(AutomatonTest, ListsSkipWhatIsNotRequired) {
  Grammar grammar;
  const ExpressionId list =
      grammar.List({grammar.Bytes("a"), grammar.Bytes("b"), grammar.Bytes("c")},
                   {false, true, false}, grammar.Bytes(","));
  const RuleId rule = grammar.DeclareRule();
  grammar.DefineRule(rule, grammar.Sequence({grammar.Bytes("{"), list, grammar.Bytes("}")}));
  const auto automaton = Automaton::Create(grammar, rule);
  ASSERT_TRUE(automaton.ok());
  for (const char* taken : {"{b}", "{a,b}", "{b,c}", "{a,b,c}"}) {
    EXPECT_TRUE(Takes(*automaton, taken)) << taken;
  }
  for (const char* refused :
       {"{}", "{a}", "{a,c}", "{,b}", "{b,}", "{b,a}", "{a,b,c,}", "{b,,c}"}) {
    EXPECT_FALSE(Takes(*automaton, refused)) << refused;
  }
}

}  // namespace
}  // namespace baton::grammar
