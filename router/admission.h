#pragma once

// What is checked of a request once its prompt is tokenized, before any worker hears of it.

#include <cstdint>

#include "absl/status/status.h"
#include "router/request.h"
#include "text/tokenizer.h"

namespace baton::router {

// Makes `input.sampling` complete (max_tokens from what the context leaves; the seed stays the
// caller's to draw) and checks it, the prompt's length and the stop strings. InvalidArgument with
// the field and its numbers.
absl::Status Admit(GenerateInput& input, size_t prompt_tokens, int32_t context_tokens,
                   int32_t vocab_size, const RequestLimits& limits);

// input.bad_words to sampling.bad_words. InvalidArgument with the numbers, before any work.
absl::Status TokenizeBadWords(GenerateInput& input, const text::Tokenizer& tokenizer,
                              const RequestLimits& limits);

}  // namespace baton::router
