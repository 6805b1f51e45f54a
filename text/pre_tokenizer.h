#pragma once

// Splits text into the words that byte-pair merges never cross, as the tokenizer's published
// pattern does, but with hand-written scanners: linear in the text, and any bytes are accepted
// (an invalid byte counts as a symbol). Immutable and thread-safe.

#include <cstddef>
#include <optional>
#include <string_view>

#include "text/char_class.h"

namespace baton::text {

// Named after tokenizer.ggml.pre. The patterns, where alternatives are tried from the left:
//   gpt-2:     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm:    the same within the stretches between numerals, each of which stands alone (\p{N})
//   llama-bpe: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//              | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2:     as llama-bpe, but with \p{N} for \p{N}{1,3}
enum class PreTokenizerKind { kGpt2, kSmolLm, kLlamaBpe, kQwen2 };

std::optional<PreTokenizerKind> PreTokenizerFromName(std::string_view name);

class PreTokenizer {
 public:
  explicit PreTokenizer(PreTokenizerKind kind) : kind_(kind), classes_(CharClasses::Get()) {}

  // The end of the word that starts at text[begin]; begin < text.size(), the result is > begin.
  size_t WordEnd(std::string_view text, size_t begin) const;

 private:
  size_t Gpt2WordEnd(std::string_view text, size_t begin, bool split_numbers) const;
  size_t Llama3WordEnd(std::string_view text, size_t begin, int max_digits) const;
  size_t RunEnd(std::string_view text, size_t begin, CharClass kind) const;

  PreTokenizerKind kind_;
  const CharClasses& classes_;
};

}  // namespace baton::text
