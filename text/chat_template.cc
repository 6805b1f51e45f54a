#include "text/chat_template.h"

#include <utility>

#include "common/status_macros.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/json_reader.h"
#include "text/jinja/parser.h"

namespace baton::text {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Text;
using jinja::Value;

// The arguments of a call are text in the HTTP API; templates want what they say.
absl::StatusOr<Value> ToolCallsValue(std::string_view tool_calls) {
  BATON_ASSIGN_OR_RETURN(const Value calls, jinja::ReadJson(tool_calls));
  if (calls.list() == nullptr) return absl::InvalidArgumentError("tool calls are no array");
  List list;
  for (const Value& call : calls.list()->items) {
    const Value* function = call.dict() == nullptr ? nullptr : call.dict()->Find("function");
    if (function == nullptr || function->dict() == nullptr) {
      return absl::InvalidArgumentError("a tool call has no function");
    }
    Dict parsed = *function->dict();
    const Value* arguments = parsed.Find("arguments");
    if (arguments != nullptr && arguments->text() != nullptr) {
      absl::StatusOr<Value> read = jinja::ReadJson(arguments->text()->bytes());
      if (read.ok()) parsed.Set(Value(Text::Template("arguments")), *std::move(read));
    }
    Dict whole = *call.dict();
    whole.Set(Value(Text::Template("function")), Value(std::move(parsed)));
    list.items.push_back(Value(std::move(whole)));
  }
  return Value(std::move(list));
}

absl::StatusOr<Value> MessageValue(const ChatMessage& message) {
  Dict dict;
  const auto set = [&dict](std::string_view name, const std::string& text) {
    dict.Set(Value(Text::Template(name)), Value(Text::User(text)));
  };
  set("role", message.role);
  set("content", message.content);
  if (!message.name.empty()) set("name", message.name);
  if (!message.tool_call_id.empty()) set("tool_call_id", message.tool_call_id);
  if (!message.tool_calls.empty()) {
    BATON_ASSIGN_OR_RETURN(Value calls, ToolCallsValue(message.tool_calls));
    dict.Set(Value(Text::Template("tool_calls")), std::move(calls));
  }
  return Value(std::move(dict));
}

// Runs of bytes with one writer.
std::vector<TextPiece> Pieces(const Text& text) {
  std::vector<TextPiece> pieces;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    const bool user = text.IsUser(begin);
    while (end < text.size() && text.IsUser(end) == user) ++end;
    pieces.push_back({std::string(text.bytes().substr(begin, end - begin)),
                      user ? SpecialTokens::kPlainText : SpecialTokens::kParseSpecial});
  }
  return pieces;
}

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::string_view source, jinja::Body body, std::string bos, std::string eos,
                    WallClock now)
      : source_(source),
        body_(std::move(body)),
        bos_(std::move(bos)),
        eos_(std::move(eos)),
        now_(now) {}

  absl::StatusOr<std::vector<TextPiece>> Render(const std::vector<ChatMessage>& messages,
                                                bool add_generation_prompt,
                                                std::string_view tools) const final {
    List list;
    for (const ChatMessage& message : messages) {
      BATON_ASSIGN_OR_RETURN(list.items.emplace_back(), MessageValue(message));
    }
    jinja::Variables variables;
    variables["messages"] = Value(std::move(list));
    variables["add_generation_prompt"] = Value(add_generation_prompt);
    variables["tools"] = Value::NoneValue();
    if (!tools.empty()) {
      BATON_ASSIGN_OR_RETURN(variables["tools"], jinja::ReadJson(tools));
    }
    variables["documents"] = Value::NoneValue();
    variables["bos_token"] = Value(Text::Template(bos_));
    variables["eos_token"] = Value(Text::Template(eos_));
    jinja::Interpreter interpreter(std::move(variables),
                                   now_ == nullptr ? std::time(nullptr) : now_());
    BATON_ASSIGN_OR_RETURN(const Text text, interpreter.Run(body_));
    return Pieces(text);
  }

  std::string_view source() const final { return source_; }

 private:
  const std::string source_;
  const jinja::Body body_;
  const std::string bos_;
  const std::string eos_;
  const WallClock now_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Create(std::string_view source,
                                                                         std::string bos,
                                                                         std::string eos,
                                                                         WallClock now) {
  BATON_ASSIGN_OR_RETURN(jinja::Body body, jinja::Parse(source));
  return std::make_unique<JinjaChatTemplate>(source, std::move(body), std::move(bos),
                                             std::move(eos), now);
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::FromFile(
    const GgufFile& file, const Tokenizer& tokenizer) {
  BATON_ASSIGN_OR_RETURN(const std::string_view source, file.String("tokenizer.chat_template"));
  BATON_ASSIGN_OR_RETURN(const int64_t eos, file.IntOr("tokenizer.ggml.eos_token_id", -1));
  const bool known_eos = eos >= 0 && eos < tokenizer.vocab_size();
  return Create(source, tokenizer.bos() >= 0 ? tokenizer.TokenText(tokenizer.bos()) : "",
                known_eos ? tokenizer.TokenText(static_cast<TokenId>(eos)) : "");
}

}  // namespace baton::text
