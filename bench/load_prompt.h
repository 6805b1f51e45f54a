#pragma once

// Prompts for a server whose tokenizer is not known, and the bodies that carry them. Pure.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/ids.h"

namespace baton::bench {

// `words` common English words, a token each for almost every vocabulary. Equal seeds give equal
// texts, and the shorter of two is how the longer one begins; unlike seeds give texts that differ
// from the first words on.
std::string WordText(uint64_t seed, int64_t words);

struct BodyOptions {
  std::string model;  // "": left out
  int64_t output_tokens = 64;
  bool stream = true;
  bool usage = false;       // of streams: ask for it
  bool ignore_eos = false;  // vLLM's extension: exactly output_tokens
};
std::string ChatBody(std::string_view text, const BodyOptions& options);
std::string CompletionBody(std::string_view text, const BodyOptions& options);
std::string CompletionBody(std::span<const TokenId> prompt, const BodyOptions& options);

}  // namespace baton::bench
