#pragma once

// What the router needs of the model: its tokenizer, chat template and limits. Never its weights.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_file/gguf.h"
#include "router/request.h"
#include "router/tool_calls.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace baton::router {

// Immutable after Load, so safe to share between threads.
class ServedModel {
 public:
  // `name`: what clients call it; "" takes the file's stem. A chat
  // template that does not parse only turns chat requests into errors.
  static absl::StatusOr<std::unique_ptr<const ServedModel>> Load(const std::string& path,
                                                                 const std::string& name);

  const std::string& name() const { return name_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  int32_t context_tokens() const { return context_tokens_; }  // of the file's metadata

  // How the model writes calls of tools.
  ToolFormat tool_format() const;

  // OK for "" and the model's name, else NotFound naming the one there is.
  absl::Status CheckName(const std::string& model) const;

  // A prompt's token ids: text with BOS where the model wants it, chat by the template, ids as they
  // are. InvalidArgument for ids outside the vocabulary, too many messages, chat without a
  // template, or text of so many bytes that it cannot fit into `context_tokens` (found before the
  // work of tokenizing it).
  absl::StatusOr<std::vector<TokenId>> PromptTokens(const GenerateInput& input,
                                                    const RequestLimits& limits,
                                                    int32_t context_tokens) const;

 private:
  ServedModel() = default;
  absl::StatusOr<std::vector<text::TextPiece>> RenderChat(
      const GenerateInput& input, const std::vector<text::ChatMessage>& messages,
      const RequestLimits& limits) const;
  absl::StatusOr<std::vector<text::TextPiece>> RenderMessages(
      const GenerateInput& input, const std::vector<text::ChatMessage>& messages,
      const std::string& tools) const;
  absl::StatusOr<std::vector<TokenId>> Encode(const std::vector<text::TextPiece>& pieces,
                                              bool add_bos, int32_t context_tokens) const;
  absl::StatusOr<std::vector<TokenId>> WholePrompt(const GenerateInput& input,
                                                   const RequestLimits& limits,
                                                   int32_t context_tokens) const;
  absl::Status CheckIds(const std::vector<TokenId>& tokens) const;

  std::shared_ptr<const GgufFile> file_;
  std::string name_;
  int32_t context_tokens_ = 0;
  size_t longest_token_bytes_ = 1;
  std::unique_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<const text::ChatTemplate> chat_template_;
  absl::Status why_no_chat_;
};

}  // namespace baton::router
