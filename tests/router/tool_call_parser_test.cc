#include "router/tool_call_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace baton::router {
namespace {

using Delivery = ToolCallParser::Delivery;
constexpr ToolFormat kHermes = ToolFormat::kHermes;
constexpr ToolFormat kLlama = ToolFormat::kLlama;

constexpr std::string_view kTwoTools = R"([
  {"type": "function", "function": {"name": "weather"}},
  {"type": "function", "function": {"name": "now"}}])";

struct Parsed {
  std::string text;
  std::vector<std::string> calls;  // name and arguments
  bool operator==(const Parsed&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Parsed& parsed) {
  out << "'" << parsed.text << "'";
  for (const std::string& call : parsed.calls) out << " " << call;
  return out;
}

// In pieces of so many bytes.
Parsed Parse(ToolFormat format, Delivery delivery, std::string_view answer, size_t piece_bytes) {
  ToolCallParser parser(format, kTwoTools, delivery);
  Parsed parsed;
  const auto take = [&](const ToolCallParser::Piece& piece) {
    parsed.text += piece.text;
    for (const ToolCallDelta& call : piece.calls) {
      const bool begins = static_cast<size_t>(call.index) == parsed.calls.size();
      EXPECT_EQ(begins, !call.name.empty());
      if (begins) parsed.calls.push_back(call.name);
      ASSERT_EQ(static_cast<size_t>(call.index) + 1, parsed.calls.size());
      parsed.calls.back() += call.arguments;
    }
  };
  for (size_t at = 0; at < answer.size(); at += piece_bytes) {
    take(parser.Push(answer.substr(at, piece_bytes)));
  }
  take(parser.Finish());
  EXPECT_EQ(static_cast<size_t>(parser.calls()), parsed.calls.size());
  return parsed;
}

void Expect(ToolFormat format, std::string_view answer, const Parsed& whole,
            const Parsed& as_it_comes) {
  for (size_t bytes = 1; bytes <= answer.size() + 1; ++bytes) {
    EXPECT_EQ(Parse(format, Delivery::kWhole, answer, bytes), whole)
        << answer << " in pieces of " << bytes;
    EXPECT_EQ(Parse(format, Delivery::kAsItComes, answer, bytes), as_it_comes)
        << answer << ", as it comes, in pieces of " << bytes;
  }
}

void Expect(ToolFormat format, std::string_view answer, const Parsed& expected) {
  Expect(format, answer, expected, expected);
}

TEST(ToolCallParserTest, HermesCallsHoweverTheyArePiecedOut) {
  Expect(kHermes, "Plain <tool> text.", {"Plain <tool> text.", {}});
  Expect(kHermes,
         "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>",
         {"", {R"(weather{"city": "Bonn"})"}});
  Expect(kHermes,
         "Let me see.\n<tool_call>{\"name\": \"now\"}</tool_call>\n"
         "<tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call>\n",
         {"Let me see.", {"now{}", "weather{}"}});
  // The end of the answer ends a call, too.
  Expect(kHermes, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}", {"", {"now{}"}});
  // Members in another order, others among them; marks and brackets inside of strings.
  Expect(kHermes,
         R"(<tool_call>{"id": [1, {"name": 2}], "arguments": {"a": "}</tool_call>\"{", "b": [{}]})"
         R"(, "n\u0061me": "now"}</tool_call>)",
         {"", {R"(now{"a": "}</tool_call>\"{", "b": [{}]})"}});
  // What is no call is text.
  Expect(kHermes, "<tool_call>nonsense</tool_call> after",
         {"<tool_call>nonsense</tool_call> after", {}});
  Expect(kHermes, "<tool_call>{\"name\": \"now\"", {"<tool_call>{\"name\": \"now\"", {}});
  Expect(kHermes, "<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>",
         {"<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>", {}});
  Expect(kHermes, "<tool_call>{\"name\": \"now\", \"arguments\": []}</tool_call>",
         {"<tool_call>{\"name\": \"now\", \"arguments\": []}</tool_call>", {}});
  Expect(kHermes, "<tool_call>{\"arguments\": {}}", {"<tool_call>{\"arguments\": {}}", {}});
  Expect(kHermes, "a <tool_ca", {"a <tool_ca", {}});
  Expect(kHermes, " a\n\n b \n", {" a\n\n b \n", {}});
}

TEST(ToolCallParserTest, TextBesideHermesCallsIsKept) {
  Expect(kHermes, "<tool_call>x <tool_call>{\"name\": \"now\"}</tool_call> y",
         {"<tool_call>x y", {"now{}"}});
  Expect(kHermes, "<tool_call>{\"name\": \"now\"} and <tool_call>{\"name\": \"now\"}</tool",
         {"and</tool", {"now{}", "now{}"}});
}

TEST(ToolCallParserTest, LlamaCallsAreTheAnswersBeginning) {
  Expect(kLlama, R"({"name": "weather", "parameters": {"city": "Bonn"}})",
         {"", {R"(weather{"city": "Bonn"})"}});
  Expect(kLlama, R"(<|python_tag|>{"name": "now", "parameters": {}}; {"name": "now"})",
         {"", {"now{}", "now{}"}});
  Expect(kLlama, "It is {\"name\": \"now\"}", {"It is {\"name\": \"now\"}", {}});
  Expect(kLlama, R"({"name": "unknown", "parameters": {}} x)",
         {R"({"name": "unknown", "parameters": {}} x)", {}});
  Expect(kLlama, R"({"answer": 42})", {R"({"answer": 42})", {}});
  Expect(kLlama, " <|python_tag|>print(1)", {" <|python_tag|>print(1)", {}});
  Expect(kLlama, R"({"name": "now"}; so {"name": "now"})", {R"(; so {"name": "now"})", {"now{}"}});
  Expect(kLlama, R"({"name": "now"}; <|pyth)", {"; <|pyth", {"now{}"}});
}

// A whole answer takes back what a stream has told already.
TEST(ToolCallParserTest, ACallThatBreaksOffLosesNoByte) {
  Expect(kHermes, R"(<tool_call>{"name": "now", "arguments": {"a": 1, oh} </tool_call>)",
         {R"(<tool_call>{"name": "now", "arguments": {"a": 1, oh} </tool_call>)", {}},
         {"oh} </tool_call>", {R"(now{"a": 1, )"}});
  Expect(kHermes, R"(<tool_call>{"name": "now", "arguments": {"a": "cut o)",
         {R"(<tool_call>{"name": "now", "arguments": {"a": "cut o)", {}},
         {"", {R"(now{"a": "cut o)"}});
  Expect(kLlama, R"({"name": "now", "parameters": {)", {R"({"name": "now", "parameters": {)", {}},
         {"", {"now{"}});
}

TEST(ToolCallParserTest, ArgumentsComeWhileTheyAreWritten) {
  ToolCallParser parser(kHermes, kTwoTools, Delivery::kAsItComes);
  EXPECT_TRUE(parser.Push("<tool_call>\n{\"name\": \"weather\", \"argu").calls.empty());
  auto piece = parser.Push("ments\": {\"ci");
  ASSERT_EQ(piece.calls.size(), 1u);
  EXPECT_EQ(piece.calls[0].name, "weather");
  EXPECT_EQ(piece.calls[0].arguments, "{\"ci");
  piece = parser.Push("ty\": \"Bo");
  ASSERT_EQ(piece.calls.size(), 1u);
  EXPECT_EQ(piece.calls[0].name, "");
  EXPECT_EQ(piece.calls[0].arguments, "ty\": \"Bo");
  piece = parser.Push("nn\"}");
  EXPECT_EQ(piece.calls[0].arguments, "nn\"}");
  EXPECT_TRUE(parser.Push("}\n</tool_call>").calls.empty());
  EXPECT_EQ(parser.Finish().text, "");
}

// Whatever comes: pieces do not matter, and text that has no mark of a call is shown as it is.
TEST(ToolCallParserTest, RandomAnswersDoNotDependOnTheirPieces) {
  const std::vector<std::string> words = {"<tool_call>",
                                          "</tool_call>",
                                          "<|python_tag|>",
                                          "{\"name\": \"now\"",
                                          "}",
                                          "{",
                                          "\"",
                                          "\\",
                                          ", \"parameters\": {",
                                          "\"weather\"",
                                          ":",
                                          " ",
                                          "\n",
                                          ";",
                                          "x",
                                          "\"name\": ",
                                          "</tool_",
                                          "<tool"};
  const uint32_t seed = 20261122;
  std::mt19937 random(seed);
  for (int round = 0; round < 3'000; ++round) {
    std::string answer;
    for (size_t i = random() % 12; i > 0; --i) answer += words[random() % words.size()];
    for (const ToolFormat format : {kHermes, kLlama}) {
      for (const Delivery delivery : {Delivery::kWhole, Delivery::kAsItComes}) {
        const Parsed at_once = Parse(format, delivery, answer, answer.size() + 1);
        EXPECT_EQ(Parse(format, delivery, answer, 1), at_once) << answer << " of seed " << seed;
        EXPECT_EQ(Parse(format, delivery, answer, 3), at_once) << answer << " of seed " << seed;
        if (at_once.calls.empty()) {
          EXPECT_EQ(at_once.text, answer) << "of seed " << seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace baton::router
