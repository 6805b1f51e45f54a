#include "grammar/constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

using testing::HasSubstr;

TEST(ConstraintTest, ChoicesTakeOneOfTheTexts) {
  Matching choice(R"({"choice": ["yes", "no", "not sure", "\"quoted\""]})");
  for (const char* taken : {"yes", "no", "not sure", "\"quoted\""}) {
    EXPECT_TRUE(choice.Takes(taken));
  }
  for (const char* refused : {"", "n", "yes ", "notsure"}) EXPECT_FALSE(choice.Takes(refused));
}

TEST(ConstraintTest, ThousandsOfChoicesAreAllThere) {
  std::string texts;
  for (int i = 0; i < 3000; ++i) texts += (i == 0 ? "\"" : ",\"") + std::to_string(i * 7919) + '"';
  Matching choice("{\"choice\": [" + texts + "]}");
  for (int i = 0; i < 3000; ++i) EXPECT_TRUE(choice.Takes(std::to_string(i * 7919)));
  EXPECT_FALSE(choice.Takes("7918"));
}

TEST(ConstraintTest, SequencesRepetitionsAndAlternatives) {
  Matching calls(R"({"repeat": {"sequence": [{"choice": ["<"]},
      {"any_of": [{"json_object": true}, {"regex": "[0-9]+"}]}, {"choice": [">"]}]},
      "separator": "\n", "least": 1, "most": 3})");
  for (const char* taken : {"<{}>", "<12>\n<{\"a\": 1}>", "<1>\n<2>\n<3>"}) {
    EXPECT_TRUE(calls.Takes(taken)) << taken;
  }
  for (const char* refused : {"", "<>", "<1>\n", "<1><2>", "<1>\n<2>\n<3>\n<4>"}) {
    EXPECT_FALSE(calls.Takes(refused)) << refused;
  }
}

TEST(ConstraintTest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(WhyNot(""), HasSubstr("is not JSON"));
  EXPECT_THAT(WhyNot("[]"), HasSubstr("is no JSON object"));
  EXPECT_THAT(WhyNot(R"({"grammar": "x"})"), HasSubstr("is of no known kind"));
  EXPECT_THAT(WhyNot(R"({"regex": 1})"), HasSubstr("'regex' that is no string"));
  EXPECT_THAT(WhyNot(R"({"choice": [1]})"), HasSubstr("a choice that is no string"));
  EXPECT_THAT(WhyNot(R"({"choice": []})"), HasSubstr("no text satisfies"));
  EXPECT_THAT(WhyNot(R"({"choice": [""]})"), HasSubstr("only the empty text"));
  EXPECT_THAT(WhyNot(R"({"repeat": {"regex": "a"}, "separator": "", "least": 0, "most": 9})"),
              HasSubstr("from 1 to 64"));
  std::string deep = R"({"regex": "a"})";
  for (int i = 0; i < 12; ++i) deep = R"({"sequence": [)" + deep + "]}";
  EXPECT_THAT(WhyNot(deep), HasSubstr("nests more than 8 deep"));
  EXPECT_THAT(WhyNot(std::string(kMaxConstraintBytes + 1, ' ')), HasSubstr("at most 65536"));
}

}  // namespace
}  // namespace baton::grammar
