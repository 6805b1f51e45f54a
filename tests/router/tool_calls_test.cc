#include "router/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar/constraint.h"
#include "grammar/lazy_dfa.h"

namespace baton::router {
namespace {

constexpr std::string_view kTools = R"([
  {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters":
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
  {"type": "function", "function": {"name": "now"}}])";

bool Takes(const std::string& constraint, std::string_view text) {
  auto automaton = grammar::CompileConstraint(constraint);
  EXPECT_TRUE(automaton.ok()) << automaton.status();
  grammar::LazyDfa dfa(*automaton);
  int32_t state = dfa.begin();
  for (const char c : text) {
    state = dfa.Next(state, static_cast<uint8_t>(c));
    if (state == grammar::LazyDfa::kDead) return false;
  }
  return dfa.accepts(state);
}

TEST(ToolConstraintTest, AllowsCallsAlone) {
  const std::string weather =
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"x\"}}\n</tool_call>";
  const std::string now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  ToolUse use{ToolUse::Choice::kRequired, std::string(kTools), "", true};
  const std::string several = *ToolConstraint(ToolFormat::kHermes, use);
  EXPECT_TRUE(Takes(several, weather));
  EXPECT_TRUE(Takes(several, weather + "\n" + now));
  EXPECT_FALSE(Takes(several, "Hello " + weather));
  EXPECT_FALSE(
      Takes(several, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(
      Takes(several, "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>"));

  use.parallel = false;
  EXPECT_FALSE(Takes(*ToolConstraint(ToolFormat::kHermes, use), weather + "\n" + now));
  use.only = R"([{"type": "function", "function": {"name": "now"}}])";
  EXPECT_TRUE(Takes(*ToolConstraint(ToolFormat::kHermes, use), now));
  EXPECT_FALSE(Takes(*ToolConstraint(ToolFormat::kHermes, use), weather));
  EXPECT_TRUE(
      Takes(*ToolConstraint(ToolFormat::kLlama, use), R"({"name": "now", "parameters": {}})"));
}

TEST(ToolConstraintTest, SchemasThatCannotBeKeptAreRefusedOnlyWhereTheyAreStrict) {
  const auto tools = [](const char* strict) {
    return std::string(R"([{"type": "function", "function": {"name": "f", "strict": )") + strict +
           R"(, "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}}])";
  };
  ToolUse use{ToolUse::Choice::kRequired, tools("false"), "", false};
  EXPECT_TRUE(
      Takes(*ToolConstraint(ToolFormat::kLlama, use), R"({"name": "f", "parameters": {"a": 1}})"));
  use.tools = tools("true");
  EXPECT_THAT(std::string(ToolConstraint(ToolFormat::kLlama, use).status().message()),
              testing::HasSubstr("the strict tool 'f' are not possible: the keyword 'not'"));
}

// Each could be compiled alone; together they would be too much for the router's time, and for a
// worker.
TEST(ToolConstraintTest, SchemasOfAllToolsShareOneBound) {
  std::string tools;
  for (int i = 0; i < 100; ++i) {
    tools += std::string(i == 0 ? "[" : ",") + R"({"type": "function", "function": {"name": "f)" +
             std::to_string(i) + R"(", "parameters": {"type": "object", "properties": {"a":
                {"type": "string", "maxLength": 1500}}, "required": ["a"]}}})";
  }
  const ToolUse use{ToolUse::Choice::kRequired, tools + "]", "", false};
  const auto constraint = ToolConstraint(ToolFormat::kLlama, use);
  ASSERT_TRUE(constraint.ok()) << constraint.status();
  EXPECT_FALSE(Takes(*constraint, R"({"name": "f0", "parameters": {"b": 1}})"));
  EXPECT_TRUE(Takes(*constraint, R"({"name": "f99", "parameters": {"b": 1}})"));
}

TEST(ToolFormatTest, IsTheTemplatesOwn) {
  EXPECT_EQ(ToolFormatOf("{{ '<tool_call>' }}"), ToolFormat::kHermes);
  EXPECT_EQ(ToolFormatOf("<|python_tag|>"), ToolFormat::kLlama);
  EXPECT_EQ(ToolFormatOf("{% for message in messages %}"), ToolFormat::kHermes);
  EXPECT_FALSE(TemplateKnowsTools("{% for message in messages %}"));
  EXPECT_TRUE(TemplateKnowsTools("{% if tools %}"));
}

TEST(ToolsInMessagesTest, SayWhatTheTemplateCannot) {
  const auto written =
      WithToolsInMessages({{"system", "Be brief."},
                           {"user", "Weather?"},
                           {"assistant", "", R"([{"id": "1", "type": "function", "function":
           {"name": "now", "arguments": "{\"a\": 1}"}}])"},
                           {"tool", "12:00", "", "1"},
                           {"tool", "13:00", "", "2"}},
                          kTools);
  ASSERT_TRUE(written.ok());
  ASSERT_EQ(written->size(), 4u);
  EXPECT_EQ((*written)[0].role, "system");
  EXPECT_THAT((*written)[0].content, testing::StartsWith("Be brief.\n\nYou may call"));
  EXPECT_THAT((*written)[0].content, testing::HasSubstr("\"name\":\"weather\""));
  EXPECT_EQ((*written)[2].content,
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": 1}}\n</tool_call>");
  EXPECT_EQ((*written)[3].role, "user");
  EXPECT_EQ((*written)[3].content,
            "<tool_response>\n12:00\n</tool_response>\n<tool_response>\n13:00\n</tool_response>");
}

}  // namespace
}  // namespace baton::router
