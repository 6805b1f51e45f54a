#include "model_file/end_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "common/status_macros.h"

namespace baton {
namespace {

constexpr std::string_view kEndKeys[] = {
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
constexpr std::string_view kEndNames[] = {"<|im_end|>",     "<|eot_id|>", "<|eom_id|>",
                                          "<end_of_turn>",  "<|end|>",    "<|endoftext|>",
                                          "<|end_of_text|>"};

absl::Status AddNamedTokens(const GgufFile& file, std::vector<TokenId>& end_tokens) {
  if (!file.Has("tokenizer.ggml.tokens") || !file.Has("tokenizer.ggml.token_type")) {
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const auto names, file.Strings("tokenizer.ggml.tokens"));
  BATON_ASSIGN_OR_RETURN(const auto types, file.Ints("tokenizer.ggml.token_type"));
  constexpr int64_t kControl = 3;
  for (size_t i = 0; i < std::min(names.size(), types.size()); ++i) {
    if (types[i] == kControl && std::ranges::find(kEndNames, names[i]) != std::end(kEndNames)) {
      end_tokens.push_back(static_cast<TokenId>(i));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> ReadEndTokens(const GgufFile& file, int64_t vocab_size) {
  std::vector<TokenId> end_tokens;
  for (const std::string_view key : kEndKeys) {
    BATON_ASSIGN_OR_RETURN(const int64_t token, file.IntOr(key, -1));
    if (token < -1 || token >= vocab_size) {
      return absl::InvalidArgumentError(fmt::format("{}: {} is {}, the vocabulary has {} tokens",
                                                    file.path(), key, token, vocab_size));
    }
    if (token >= 0) end_tokens.push_back(static_cast<TokenId>(token));
  }
  BATON_RETURN_IF_ERROR(AddNamedTokens(file, end_tokens));
  std::ranges::sort(end_tokens);
  const auto repeated = std::ranges::unique(end_tokens);
  end_tokens.erase(repeated.begin(), repeated.end());
  return end_tokens;
}

}  // namespace baton
