#include "grammar/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

using testing::HasSubstr;

TEST(RegexTest, TakesWhatThePatternMatches) {
  struct Case {
    const char* pattern;
    std::vector<std::string> taken, refused;
  };
  const std::vector<Case> cases = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"^abc$", {"abc"}, {"ab", "^abc$"}},
      {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
      {"(ab)*c", {"c", "ababc"}, {"abac"}},
      {"a+?b?", {"a", "aaab"}, {"", "b"}},
      {"x{2}y{1,3}z{2,}", {"xxyzz", "xxyyyzzzz"}, {"xyzz", "xxyyyyzz", "xxyz"}},
      {"a{,3}", {"a{,3}"}, {"a", "aaa"}},
      {"{x}", {"{x}"}, {"x"}},
      {"[a-c_-]+", {"a_-c"}, {"d", ""}},
      {"[^a-c]", {"d", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"a", "dd", "\xC3"}},
      {"[]x]", {"]", "x"}, {"["}},
      {".", {"a", "\xE2\x82\xAC"}, {"\n", "ab", "\x80"}},
      {R"(\d{3}-\w+\s\S)", {"123-a_9 x"}, {"12-a x", "123-\xC3\xA9 x", "123-a  "}},
      {R"(\D\W)", {"a-", "\xC3\xA9\xC3\xA9"}, {"1-", "aa"}},
      {R"(\x41\u00e9\.\n)", {"A\xC3\xA9.\n"}, {"A\xC3\xA9x\n"}},
      {"(?:a|(?P<n>b)|(?<m>c))d", {"ad", "bd", "cd"}, {"d"}},
      {"((a?)*)*", {"", "aaa"}, {"b"}},
      {"\xC3\xA9|[\xC3\xA0-\xC3\xBF]x", {"\xC3\xA9", "\xC3\xA1x"}, {"\xC3\xA1", "\xC3"}},
  };
  for (const Case& one : cases) {
    Matching matching(RegexConstraint(one.pattern));
    for (const std::string& text : one.taken) EXPECT_TRUE(matching.Takes(text)) << one.pattern;
    for (const std::string& text : one.refused) {
      EXPECT_FALSE(matching.Takes(text)) << one.pattern << " " << text;
    }
  }
}

TEST(RegexTest, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"a(?=b)", "a look-around, which is not supported, at character 1"},
      {"(?<!b)a", "a look-around"},
      {R"((a)\1)", R"('\1', which is not supported, at character 3)"},
      {R"(\bword)", R"('\b')"},
      {R"(\p{L})", R"('\p')"},
      {"a^b", "'^' after its beginning"},
      {"a$b", "'$' before its end"},
      {"(a$)", "'$' before its end"},
      {"a++", "a possessive repetition"},
      {"a**", "a repetition of a repetition"},
      {"(?i)a", "a group with '(?'"},
      {"[[:alpha:]]", "a named class"},
      {"*a", "nothing to repeat at character 0"},
      {"{2}", "nothing to repeat"},
      {"a{3,2}", "a count from high to low"},
      {"a{9999}", "a count of 9999, but at most 5000"},
      {"(a", "a group that is not closed at character 0"},
      {"a)", "an unmatched ')' at character 1"},
      {"[a", "a class that is not closed"},
      {"[z-a]", "a range that is none"},
      {R"([\d-x])", "a range that is none"},
      {"a\\", "a backslash with nothing after it"},
      {R"(\xg1)", "an escape without 2 hex digits"},
  };
  for (const auto& [pattern, why] : cases) {
    EXPECT_THAT(WhyNot(RegexConstraint(pattern)), HasSubstr(why)) << pattern;
  }
  EXPECT_THAT(WhyNot(RegexConstraint("[^\\s\\S]")), HasSubstr("no text satisfies"));
  EXPECT_THAT(WhyNot(RegexConstraint("()")), HasSubstr("only the empty text"));
  const std::string deep = std::string(70, '(') + "a" + std::string(70, ')');
  EXPECT_THAT(WhyNot(RegexConstraint(deep)), HasSubstr("64 deep"));
  EXPECT_THAT(WhyNot(RegexConstraint("(a{5000}){5000}")), HasSubstr("too large"));
}

// Against the standard library's expressions, on random patterns and texts.
TEST(RegexTest, AgreesWithAnotherImplementation) {
  std::mt19937 random(20);
  const std::function<std::string(int)> pattern = [&](int depth) -> std::string {
    switch (random() % (depth > 3 ? 3 : 8)) {
      case 0:
        return "a";
      case 1:
        return "b";
      case 2:
        return "[^a]";
      case 3:
        return "(" + pattern(depth + 1) + "|" + pattern(depth + 1) + ")";
      case 4:
        return "(" + pattern(depth + 1) + ")*";
      case 5:
        return "(" + pattern(depth + 1) + "){1,2}";
      default:
        return pattern(depth + 1) + pattern(depth + 1);
    }
  };
  int taken = 0;
  for (int round = 0; round < 300; ++round) {
    const std::string source = pattern(0);
    Matching matching(RegexConstraint(source));
    const std::regex judge(source);
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (size_t k = random() % 7; k > 0; --k) text += "abc"[random() % 3];
      const bool expected = std::regex_match(text, judge);
      ASSERT_EQ(matching.Takes(text), expected) << source << " " << text;
      taken += expected;
    }
    const std::string made = matching.Random(&random, 12);
    const bool ascii =
        std::ranges::all_of(made, [](char c) { return c > 0 && c != '\n' && c != '\r'; });
    if (ascii && made.size() < 12) {
      EXPECT_TRUE(std::regex_match(made, judge)) << source;
    }
  }
  EXPECT_GT(taken, 200);
}

}  // namespace
}  // namespace baton::grammar
