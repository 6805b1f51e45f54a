#include "router/served_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/error_code.h"

namespace baton::router {
namespace {

absl::StatusOr<int32_t> ContextTokens(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const std::string_view architecture, file.String("general.architecture"));
  const std::string key = fmt::format("{}.context_length", architecture);
  BATON_ASSIGN_OR_RETURN(const int64_t tokens, file.Int(key));
  if (tokens < 2 || tokens > INT32_MAX) {
    return absl::InvalidArgumentError(
        fmt::format("{} of {} is {}, but must be in [2, {}]", key, file.path(), tokens, INT32_MAX));
  }
  return static_cast<int32_t>(tokens);
}

// Not general.name, which is free text: what clients send is one word, and the one that they see.
std::string ModelName(const GgufFile& file) {
  return std::filesystem::path(file.path()).stem().string();
}

size_t LongestTokenBytes(const text::Tokenizer& tokenizer) {
  size_t longest = 1;
  for (TokenId token = 0; token < tokenizer.vocab_size(); ++token) {
    longest = std::max(longest, tokenizer.TokenText(token).size());
  }
  return longest;
}

// Drops what the template writes behind a text, which its last message ends with.
absl::Status CutBehind(std::string_view text, std::vector<text::TextPiece>* pieces) {
  constexpr std::string_view kWhiteSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kWhiteSpace);
  if (first == std::string_view::npos) {
    return absl::InvalidArgumentError("'continue_final_message' needs a last message with text");
  }
  text = text.substr(first, text.find_last_not_of(kWhiteSpace) + 1 - first);
  std::string all;
  for (const text::TextPiece& piece : *pieces) all += piece.text;
  const size_t found = all.rfind(text);
  if (found == std::string::npos) {
    return absl::InvalidArgumentError(
        "'continue_final_message': the chat template does not show the last message as it is");
  }
  size_t left = found + text.size();
  for (size_t i = 0; i < pieces->size(); ++i) {
    std::string& piece = (*pieces)[i].text;
    if (piece.size() >= left) {
      piece.resize(left);
      pieces->resize(i + 1);
      break;
    }
    left -= piece.size();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ServedModel>> ServedModel::Load(const std::string& path,
                                                                     const std::string& name) {
  std::unique_ptr<ServedModel> model(new ServedModel);
  BATON_ASSIGN_OR_RETURN(model->file_, GgufFile::Open(path));
  BATON_ASSIGN_OR_RETURN(model->tokenizer_, text::Tokenizer::Create(*model->file_));
  BATON_ASSIGN_OR_RETURN(model->context_tokens_, ContextTokens(*model->file_));
  model->longest_token_bytes_ = LongestTokenBytes(*model->tokenizer_);
  model->name_ = name.empty() ? ModelName(*model->file_) : name;
  auto chat_template = text::ChatTemplate::FromFile(*model->file_, *model->tokenizer_);
  if (chat_template.ok()) {
    model->chat_template_ = *std::move(chat_template);
  } else {
    const auto why = chat_template.status().message();
    model->why_no_chat_ = absl::InvalidArgumentError(
        fmt::format("model '{}' takes no chat: {}", model->name_, std::string(why)));
    LogWarning(fmt::format("{}", std::string(model->why_no_chat_.message())));
  }
  return model;
}

absl::Status ServedModel::CheckName(const std::string& model) const {
  if (model.empty() || model == name_) return absl::OkStatus();
  return absl::NotFoundError(
      fmt::format("there is no model '{}'; this router serves '{}'", model, name_));
}

absl::StatusOr<std::vector<TokenId>> ServedModel::PromptTokens(const GenerateInput& input,
                                                               const RequestLimits& limits,
                                                               int32_t context_tokens) const {
  if (input.truncate_prompt_tokens < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "truncate_prompt_tokens is {}, but must not be negative", input.truncate_prompt_tokens));
  }
  const auto most = static_cast<size_t>(input.truncate_prompt_tokens);
  BATON_ASSIGN_OR_RETURN(
      std::vector<TokenId> tokens,
      WholePrompt(input, limits, most == 0 ? context_tokens : std::numeric_limits<int32_t>::max()));
  if (most > 0 && tokens.size() > most) {
    tokens.erase(tokens.begin(), tokens.end() - static_cast<ptrdiff_t>(most));
  }
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> ServedModel::WholePrompt(const GenerateInput& input,
                                                              const RequestLimits& limits,
                                                              int32_t context_tokens) const {
  if (const auto* text = std::get_if<std::string>(&input.prompt)) {
    return Encode({{*text, text::SpecialTokens::kPlainText}}, input.add_special_tokens,
                  context_tokens);
  }
  if (const auto* messages = std::get_if<std::vector<text::ChatMessage>>(&input.prompt)) {
    BATON_ASSIGN_OR_RETURN(const auto pieces, RenderChat(input, *messages, limits));
    return Encode(pieces, /*add_bos=*/true, context_tokens);
  }
  const auto& tokens = std::get<std::vector<TokenId>>(input.prompt);
  BATON_RETURN_IF_ERROR(CheckIds(tokens));
  return tokens;
}

absl::StatusOr<std::vector<text::TextPiece>> ServedModel::RenderChat(
    const GenerateInput& input, const std::vector<text::ChatMessage>& messages,
    const RequestLimits& limits) const {
  const std::string& tools = input.tools;
  if (chat_template_ == nullptr) return why_no_chat_;
  if (messages.empty()) return absl::InvalidArgumentError("the chat has no messages");
  if (messages.size() > limits.max_messages) {
    return absl::InvalidArgumentError(fmt::format("the chat has {} messages, but the limit is {}",
                                                  messages.size(), limits.max_messages));
  }
  const bool about_tools = !tools.empty() || std::ranges::any_of(messages, [](const auto& message) {
    return message.role == "tool" || !message.tool_calls.empty();
  });
  if (about_tools && !TemplateKnowsTools(chat_template_->source())) {
    BATON_ASSIGN_OR_RETURN(const std::vector<text::ChatMessage> written,
                           WithToolsInMessages(messages, tools));
    return RenderMessages(input, written, "");
  }
  return RenderMessages(input, messages, tools);
}

ToolFormat ServedModel::tool_format() const {
  return ToolFormatOf(chat_template_ == nullptr ? "" : chat_template_->source());
}

absl::StatusOr<std::vector<text::TextPiece>> ServedModel::RenderMessages(
    const GenerateInput& input, const std::vector<text::ChatMessage>& messages,
    const std::string& tools) const {
  auto pieces = chat_template_->Render(messages, input.add_generation_prompt, tools);
  if (pieces.ok() && input.continue_final_message) {
    BATON_RETURN_IF_ERROR(CutBehind(messages.back().content, &*pieces));
  }
  if (pieces.ok()) return pieces;
  // A chat that hits the template's bounds is the client's to change, not to send again.
  return absl::InvalidArgumentError(
      fmt::format("the chat cannot be rendered: {}", std::string(pieces.status().message())));
}

absl::StatusOr<std::vector<TokenId>> ServedModel::Encode(const std::vector<text::TextPiece>& pieces,
                                                         bool add_bos,
                                                         int32_t context_tokens) const {
  size_t bytes = 0;
  for (const text::TextPiece& piece : pieces) bytes += piece.text.size();
  const size_t least_tokens = (bytes + longest_token_bytes_ - 1) / longest_token_bytes_;
  if (least_tokens >= static_cast<size_t>(context_tokens)) {
    return WithErrorCode(
        absl::InvalidArgumentError(
            fmt::format("prompt has {} bytes, at least {} tokens, but the context is {} tokens",
                        bytes, least_tokens, context_tokens)),
        kContextLengthExceeded);
  }
  return tokenizer_->EncodePrompt(pieces, add_bos);
}

absl::Status ServedModel::CheckIds(const std::vector<TokenId>& tokens) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= tokenizer_->vocab_size()) {
      return absl::InvalidArgumentError(
          fmt::format("token {} of the prompt is {}, but the vocabulary has ids 0 to {}", i,
                      tokens[i], tokenizer_->vocab_size() - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace baton::router
