#pragma once

// Token ids to text, one at a time, for streaming.

#include <string>

#include "text/tokenizer.h"

namespace baton::text {

// Gives only whole UTF-8 characters: bytes of a character whose end has not come yet are held back.
// The concatenation of all pieces and Flush() is Decode(all tokens) with every byte that belongs to
// no valid character replaced by U+FFFD. One per stream; not thread-safe; `tokenizer` must outlive
// it.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  std::string Push(TokenId token);  // the text that this token completes; often ""
  std::string Flush();              // at the end: what is held back, as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  std::string held_;
  bool first_ = true;
};

}  // namespace baton::text
