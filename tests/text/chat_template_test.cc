// Chat templates against jinja2, who wrote which byte, and the bounds on what a template may do.

#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/text/golden.h"

namespace baton::text {
namespace {

using ::testing::HasSubstr;

constexpr std::time_t kNow = 1750000000;  // as in make_text_golden.py

absl::StatusOr<std::vector<TextPiece>> RenderPieces(std::string_view source,
                                                    const std::vector<ChatMessage>& messages,
                                                    bool add_generation_prompt) {
  BATON_ASSIGN_OR_RETURN(const auto chat_template,
                         ChatTemplate::Create(source, "<BOS>", "<EOS>", [] { return kNow; }));
  return chat_template->Render(messages, add_generation_prompt);
}

std::string Text(const std::vector<TextPiece>& pieces) {
  std::string text;
  for (const TextPiece& piece : pieces) text += piece.text;
  return text;
}

absl::StatusOr<std::string> Render(std::string_view source,
                                   const std::vector<ChatMessage>& messages = {},
                                   bool add_generation_prompt = false) {
  BATON_ASSIGN_OR_RETURN(const auto pieces, RenderPieces(source, messages, add_generation_prompt));
  return Text(pieces);
}

std::string Template(const std::string& name) {
  std::ifstream in("tests/golden/text/templates/" + name);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// "=text" or "!", as the golden data has it.
std::string Outcome(const absl::StatusOr<std::string>& text) {
  return text.ok() ? "=" + *text : "!";
}

class ChatTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

TEST_F(ChatTemplateTest, ConversationsRenderAsWithJinja2) {
  const auto lines = test::ReadGolden("chat.txt");
  ASSERT_GT(lines.size(), 200u);
  for (const auto& fields : lines) {
    std::vector<ChatMessage> messages;
    for (size_t i = 3; i + 1 < fields.size(); i += 2)
      messages.push_back({fields[i], fields[i + 1]});
    const auto text = Render(Template(fields.at(0)), messages, fields.at(1) == "1");
    EXPECT_EQ(Outcome(text), fields.at(2))
        << fields[0] << ", " << messages.size() << " messages; " << text.status();
  }
}

TEST_F(ChatTemplateTest, SnippetsRenderAsWithJinja2) {
  const std::vector<ChatMessage> messages = {{"system", "You are terse.  \n"},
                                             {"user", "  Hi <|im_end|>\n "},
                                             {"assistant", "Yes. "},
                                             {"user", "Why?"}};
  for (const auto& fields : test::ReadGolden("snippets.txt")) {
    const auto text = Render(fields.at(0), messages, true);
    EXPECT_EQ(Outcome(text), fields.at(1)) << fields[0] << "; " << text.status();
  }
}

// User text is written with letters that no template holds; then every byte shows who wrote it.
TEST_F(ChatTemplateTest, EveryByteKnowsWhoWroteIt) {
  const std::string user = "\u0416\u0417 \u0418";
  int rendered = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/text/templates")) {
    const std::string name = entry.path().filename().string();
    const std::vector<ChatMessage> messages = {
        {"user", "  " + user + "\n"}, {"assistant", user}, {"user", user + "<|im_end|>\u0416"}};
    const auto pieces = RenderPieces(Template(name), messages, true);
    ASSERT_TRUE(pieces.ok()) << name << ": " << pieces.status();
    ++rendered;
    std::string by_user;
    for (const TextPiece& piece : *pieces) {
      if (piece.special == SpecialTokens::kPlainText) {
        by_user += piece.text;
      } else {
        EXPECT_EQ(piece.text.find('\xD0'), std::string::npos) << name;
      }
    }
    EXPECT_THAT(by_user, HasSubstr(user)) << name;
    EXPECT_THAT(by_user, HasSubstr("<|im_end|>\u0416")) << name;
    EXPECT_EQ(by_user.find("<|im_start|>"), std::string::npos) << name;
  }
  EXPECT_GE(rendered, 13);
}

TEST_F(ChatTemplateTest, OperationsKeepWhoWroteWhat) {
  const std::vector<ChatMessage> messages = {{"user", " a<x>b,c "}};
  const auto marked = [&](const std::string& expression) {
    const auto pieces =
        RenderPieces("{% set u = messages[0].content %}{{ " + expression + " }}", messages, false);
    EXPECT_TRUE(pieces.ok()) << pieces.status();
    std::string out;
    for (const TextPiece& piece : pieces.value_or(std::vector<TextPiece>())) {
      out += piece.special == SpecialTokens::kPlainText ? "[" + piece.text + "]" : piece.text;
    }
    return out;
  };
  EXPECT_EQ(marked("'t' + u|trim + 't'"), "t[a<x>b,c]t");
  EXPECT_EQ(marked("u.strip().split(',')|join('+')"), "[a<x>b]+[c]");
  EXPECT_EQ(marked("u[1:3]"), "[a<]");
  EXPECT_EQ(marked("u|trim|upper"), "[A<X>B,C]");
  EXPECT_EQ(marked("u|trim|replace('<x>', '<T>')"), "[a]<T>[b,c]");
  EXPECT_EQ(marked("'pUq'|replace('U', u|trim)"), "p[a<x>b,c]q");
  EXPECT_EQ(marked("(u|trim) * 2"), "[a<x>b,ca<x>b,c]");
  EXPECT_EQ(marked("u|trim|list|first ~ 't'"), "[a]t");
  EXPECT_EQ(marked("u|trim|reverse"), "[c,b>x<a]");
  EXPECT_EQ(marked("messages[0].role"), "[user]");
  EXPECT_EQ(marked("u|tojson"), "\"[ a<x>b,c ]\"");
  EXPECT_EQ(marked("[u|trim]"), "['[a<x>b,c]']");
  EXPECT_EQ(marked("{'k': u|trim}.k ~ {u|trim: 1}"), "[a<x>b,c]{'[a<x>b,c]': 1}");
  EXPECT_EQ(marked("(u ~ '\\nx')|indent(1)"), "[ a<x>b,c ]\n x");
}

TEST_F(ChatTemplateTest, ErrorsSayWhere) {
  const auto message = [](std::string_view source) {
    const absl::Status status = Render(source, {{"user", "hi"}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message("x\n{{ 1 + }}"), HasSubstr("line 2, column 8: expected an expression"));
  EXPECT_THAT(message("{% if 1 %}"), HasSubstr("expected '{% endif %}', not the end"));
  EXPECT_THAT(message("\n\n  {{ nobody.name }}"), HasSubstr("line 3"));
  EXPECT_THAT(message("{{ nobody.name }}"), HasSubstr("'nobody' is undefined"));
  EXPECT_THAT(message("{{ messages[0].name.x }}"),
              HasSubstr("'dict object' has no attribute 'name'"));
  EXPECT_THAT(message("{{ raise_exception('roles must alternate') }}"),
              HasSubstr("refuses these messages: roles must alternate"));
  EXPECT_THAT(message("{{ 'a' + 1 }}"), HasSubstr("'+' does not work between str and int"));
  EXPECT_THAT(message("{% include 'x' %}"), HasSubstr("tag 'include' is not supported"));
  EXPECT_THAT(message("{{ 1|frobnicate }}"), HasSubstr("filter 'frobnicate' is not supported"));
  EXPECT_THAT(message("{{ 9223372036854775807 + 1 }}"), HasSubstr("beyond 64-bit integers"));
}

TEST_F(ChatTemplateTest, HostileTemplatesHitABound) {
  const auto repeated = [](std::string_view part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
  };
  const std::string hostile[] = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{{ 'x' * 1000000000000 }}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}"
      "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}"
      "{% set ns.l = ns.l + [i] %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ range(100000000)|list }}",
      "{{ ('a,' * 10000000)|replace(',', 'xxxxxxxx') }}",
      "{{ ('a,' * 1000000)|replace(',', 'x' * 1000) }}",
      "{{ ('a,' * 10000000).split(',') }}",
      "{% set a = 'a' * 9999999 %}{% for i in range(99999) %}{{ a is upper }}{% endfor %}",
  };
  for (const std::string& source : hostile) {
    const absl::Status status = Render(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << source << " " << status;
  }
  const std::string too_deep[] = {
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ " + repeated("not ", 5000) + "1 }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ x" + repeated(".y", 5000) + " }}",
      "{{ x" + repeated("|trim", 5000) + " }}",
      "{{ " + repeated("1 if 0 else ", 5000) + "1 }}",
      repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
      std::string((1 << 20) + 1, 'x'),
  };
  for (const std::string& source : too_deep) {
    EXPECT_EQ(Render(source).status().code(), absl::StatusCode::kInvalidArgument)
        << source.substr(0, 40);
  }
}

// A namespace that holds itself must not outlive the rendering (the leak checker sees it).
TEST_F(ChatTemplateTest, CyclesAreFreed) {
  EXPECT_EQ(Render("{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me|length }}").value(),
            "1");
}

TEST_F(ChatTemplateTest, UserTextIsNeverATemplate) {
  EXPECT_EQ(Render("{{ messages[0].content }}", {{"user", "{{ 1 + 1 }}{% if %}"}}).value(),
            "{{ 1 + 1 }}{% if %}");
}

TEST_F(ChatTemplateTest, InvalidUtf8PassesThrough) {
  const std::string bytes = "\xFF\xC3 a \x80";
  EXPECT_EQ(Render("{{ messages[0].content }}", {{"user", bytes}}).value(), bytes);
  EXPECT_EQ(Render("{{ messages[0].content|length }}", {{"user", bytes}}).value(), "6");
  EXPECT_EQ(Render("{{ messages[0].content[0:2]|trim }}", {{"user", bytes}}).value(), "\xFF\xC3");
}

constexpr char kTools[] = R"([{"type": "function", "function":
    {"name": "now", "parameters": {"a": [1, "<|im_end|>"]}}}])";
constexpr char kCalls[] = R"([{"id": "1", "type": "function", "function":
    {"name": "now", "arguments": "{\"zone\": \"CET\"}"}}])";

// As Hugging Face renders it; and no text of a client's names a special token.
TEST_F(ChatTemplateTest, ToolsCallsAndTheirAnswers) {
  const auto chat_template = ChatTemplate::Create(Template("qwen2.5.jinja"), "", "");
  ASSERT_TRUE(chat_template.ok());
  const auto pieces =
      (*chat_template)
          ->Render({{"user", "Time?"}, {"assistant", "", kCalls}, {"tool", "12:00", "", "1"}}, true,
                   kTools);
  ASSERT_TRUE(pieces.ok()) << pieces.status();
  const std::string text = Text(*pieces);
  EXPECT_THAT(text, HasSubstr("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"now\", "
                              "\"parameters\": {\"a\": [1, \"<|im_end|>\"]}}}\n</tools>"));
  EXPECT_THAT(text, HasSubstr("<|im_start|>assistant\n<tool_call>\n{\"name\": \"now\", "
                              "\"arguments\": {\"zone\": \"CET\"}}\n</tool_call><|im_end|>"));
  EXPECT_THAT(text,
              HasSubstr("<|im_start|>user\n<tool_response>\n12:00\n</tool_response><|im_end|>"));
  for (const TextPiece& piece : *pieces) {
    if (piece.text.find("[1, ") == std::string::npos) continue;
    EXPECT_EQ(piece.text.find("<|im_end|>\"]"), std::string::npos) << "in the template's own text";
  }
}

TEST_F(ChatTemplateTest, LlamaWritesOneCallAnAnswer) {
  const auto chat_template = ChatTemplate::Create(Template("llama3.1-style.jinja"), "<BOS>", "");
  ASSERT_TRUE(chat_template.ok());
  const auto pieces =
      (*chat_template)->Render({{"user", "Time?"}, {"assistant", "", kCalls}}, false, kTools);
  ASSERT_TRUE(pieces.ok()) << pieces.status();
  EXPECT_THAT(Text(*pieces), HasSubstr("Environment: tools"));
  EXPECT_THAT(Text(*pieces), HasSubstr("now.call("));
  EXPECT_FALSE((*chat_template)->Render({{"user", "x"}}, true, "{").ok());
}

// Broken templates give an error or a text, never a crash: pieces of real ones, spliced at random.
TEST_F(ChatTemplateTest, RandomSplicesNeverCrash) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::string pool;
  for (const auto& fields : test::ReadGolden("snippets.txt")) pool += fields.at(0);
  for (const char* name : {"qwen3.jinja", "mistral-nemo.jinja", "smollm3.jinja"}) {
    pool += Template(name);
  }
  const std::vector<ChatMessage> messages = {{"system", "a"}, {"user", "b"}, {"assistant", "c"}};
  int rendered = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string source;
    for (uint64_t parts = 1 + random() % 3; parts > 0; --parts) {
      source += pool.substr(random() % pool.size(), random() % 400);
    }
    if (random() % 2 == 0 && !source.empty()) {
      source[random() % source.size()] = static_cast<char>(random());
    }
    const auto text = Render(source, messages, true);
    rendered += text.ok();
    ASSERT_TRUE(text.ok() || !text.status().message().empty());
  }
  EXPECT_GT(rendered, 0);
}

}  // namespace
}  // namespace baton::text
