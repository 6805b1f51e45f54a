#pragma once

// Text to token ids and back, exactly as the model was trained with.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model_file/gguf.h"

namespace baton::text {

// Whether the text of special tokens ("<|im_end|>") in the input becomes those tokens. Text that a
// user wrote is always encoded with kPlainText, so nobody can inject a turn or an end of sequence;
// only the template's own text is encoded with kParseSpecial.
enum class SpecialTokens { kPlainText, kParseSpecial };

// A piece of a prompt: what the chat template wrote, or what a user wrote.
struct TextPiece {
  std::string text;
  SpecialTokens special = SpecialTokens::kPlainText;
};

// Immutable after Create; all methods are thread-safe.
class Tokenizer {
 public:
  // Unicode normalisation (Qwen's NFC) is left to whoever wrote the text.
  //
  // From GGUF metadata tokenizer.ggml.*: models "gpt2" (byte-level BPE; pre-tokenizers smollm,
  // llama-bpe, qwen2, gpt-2) and "llama" (SentencePiece-style BPE with scores and byte fallback).
  // InvalidArgument names what is missing, unsound or not supported.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(const GgufFile& file);
  virtual ~Tokenizer() = default;

  // Any bytes are accepted; invalid UTF-8 round-trips through byte tokens where the vocabulary has
  // them. Adds no BOS.
  virtual std::vector<TokenId> Encode(std::string_view text, SpecialTokens special) const = 0;

  // As one prompt: the pieces follow each other without a break between special and plain, except
  // that special tokens are recognised only inside kParseSpecial pieces. Prepends BOS when the
  // model asks for it (tokenizer.ggml.add_bos_token) and `add_bos` is true and the first token is
  // not already BOS.
  std::vector<TokenId> EncodePrompt(const std::vector<TextPiece>& pieces, bool add_bos) const;

  // Raw bytes of one token: "" for control tokens (BOS, "<|im_end|>"), and for ids out of range.
  virtual std::string_view TokenBytes(TokenId token) const = 0;
  // What to show for a token in logprobs: its bytes, or a control token's own name.
  virtual std::string TokenText(TokenId token) const = 0;
  // All of `tokens` as bytes (may be invalid UTF-8 when cut in the middle of a character).
  virtual std::string Decode(const std::vector<TokenId>& tokens) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual TokenId bos() const = 0;  // -1: none
  virtual bool add_bos() const = 0;
  virtual const std::vector<TokenId>& end_tokens() const = 0;  // EOS, EOT, EOM: any ends the answer
  // Whether Decode drops one space at the very beginning: SentencePiece vocabularies that put one
  // in front of every text.
  virtual bool strips_leading_space() const = 0;

 private:
  virtual std::vector<TokenId> EncodePieces(const std::vector<TextPiece>& pieces) const = 0;
};

}  // namespace baton::text
