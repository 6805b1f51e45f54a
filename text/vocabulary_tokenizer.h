#pragma once

// What all tokenizers with a vocabulary from a file share: cutting out special and user-defined
// tokens, and everything about decoding.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_pair.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace baton::text {

// Immutable after construction; thread-safe, because working memory lives in the call.
class VocabularyTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> Encode(std::string_view text, SpecialTokens special) const final;
  std::string_view TokenBytes(TokenId token) const final { return vocabulary_.Bytes(token); }
  std::string TokenText(TokenId token) const final;
  std::string Decode(const std::vector<TokenId>& tokens) const final;
  int32_t vocab_size() const final { return vocabulary_.size(); }
  TokenId bos() const final { return vocabulary_.bos(); }
  bool add_bos() const final { return vocabulary_.add_bos(); }
  const std::vector<TokenId>& end_tokens() const final { return vocabulary_.end_tokens(); }

 protected:
  // Working memory of one Encode.
  struct Scratch {
    MergeScratch merge;
    std::vector<TokenId> word;
    std::string text;
  };

  explicit VocabularyTokenizer(Vocabulary vocabulary);

  // Appends the tokens of a non-empty run of text: all that lies between two added tokens or the
  // text's ends.
  virtual void EncodeRun(std::string_view run, Scratch& scratch,
                         std::vector<TokenId>& out) const = 0;

  const Vocabulary vocabulary_;

 private:
  std::vector<TokenId> EncodePieces(const std::vector<TextPiece>& pieces) const final;
  std::vector<TokenId> EncodeRanges(std::string_view text,
                                    const TemplateRanges& template_ranges) const;

  AddedTokens added_tokens_;
};

// tokenizer.ggml.model "gpt2" and "llama".
absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateByteLevelTokenizer(const GgufFile& file);
absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateSentencePieceTokenizer(const GgufFile& file);

}  // namespace baton::text
