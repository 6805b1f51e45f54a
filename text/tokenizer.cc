#include "text/tokenizer.h"

#include <fmt/format.h>

#include "common/status_macros.h"
#include "text/vocabulary_tokenizer.h"

namespace baton::text {

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const std::string_view model, file.String("tokenizer.ggml.model"));
  if (model == "gpt2") return CreateByteLevelTokenizer(file);
  if (model == "llama") return CreateSentencePieceTokenizer(file);
  return absl::InvalidArgumentError(fmt::format(
      "{}: tokenizer.ggml.model is '{}'; 'gpt2' and 'llama' are supported", file.path(), model));
}

std::vector<TokenId> Tokenizer::EncodePrompt(const std::vector<TextPiece>& pieces,
                                             bool prepend_bos) const {
  std::vector<TokenId> tokens = EncodePieces(pieces);
  if (prepend_bos && add_bos() && (tokens.empty() || tokens.front() != bos())) {
    tokens.insert(tokens.begin(), bos());
  }
  return tokens;
}

}  // namespace baton::text
