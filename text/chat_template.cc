#include "text/chat_template.h"

#include <utility>

#include "common/status_macros.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace baton::text {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Text;
using jinja::Value;

Value MessageValue(const ChatMessage& message) {
  Dict dict;
  dict.Set(Value(Text::Template("role")), Value(Text::User(message.role)));
  dict.Set(Value(Text::Template("content")), Value(Text::User(message.content)));
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
  JinjaChatTemplate(jinja::Body body, std::string bos, std::string eos, WallClock now)
      : body_(std::move(body)), bos_(std::move(bos)), eos_(std::move(eos)), now_(now) {}

  absl::StatusOr<std::vector<TextPiece>> Render(const std::vector<ChatMessage>& messages,
                                                bool add_generation_prompt) const final {
    List list;
    for (const ChatMessage& message : messages) list.items.push_back(MessageValue(message));
    jinja::Variables variables;
    variables["messages"] = Value(std::move(list));
    variables["add_generation_prompt"] = Value(add_generation_prompt);
    variables["tools"] = Value::NoneValue();
    variables["documents"] = Value::NoneValue();
    variables["bos_token"] = Value(Text::Template(bos_));
    variables["eos_token"] = Value(Text::Template(eos_));
    jinja::Interpreter interpreter(std::move(variables),
                                   now_ == nullptr ? std::time(nullptr) : now_());
    BATON_ASSIGN_OR_RETURN(const Text text, interpreter.Run(body_));
    return Pieces(text);
  }

 private:
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
  return std::make_unique<JinjaChatTemplate>(std::move(body), std::move(bos), std::move(eos), now);
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
