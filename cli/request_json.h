#pragma once

// Requests and answers of `baton run` as JSON, one object each.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/sampling.h"
#include "engine/generate.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace baton::cli {

// A prompt in the one form it was given.
struct PromptSource {
  std::string text;                         // -p
  std::vector<text::ChatMessage> messages;  // --chat
  std::vector<TokenId> tokens;              // --tokens
};

struct RunRequest {
  PromptSource prompt;
  SamplingParams sampling;
  std::vector<std::string> bad_words;  // sampling.bad_words are made of them
  bool has_max_tokens = false;
};

// {"tokens":[...] | "prompt":"..." | "messages":[{"role","content"}...], "sampling":{...}}, where
// sampling's fields are those of the HTTP API. Unknown fields and wrong types are InvalidArgument.
absl::StatusOr<RunRequest> ParseRunRequest(std::string_view line, const SamplingParams& defaults);

// "1, 2,3" -> {1, 2, 3}.
absl::StatusOr<std::vector<TokenId>> ParseTokenIds(std::string_view text);

// The prompt as token ids. `chat_template` may be null: messages are then FailedPrecondition.
absl::StatusOr<std::vector<TokenId>> PromptTokens(const PromptSource& prompt,
                                                  const text::Tokenizer& tokenizer,
                                                  const text::ChatTemplate* chat_template);

// One line, without newline:
// {"prompt_tokens":[...],"output_tokens":[...],"text":...,"finish_reason":"stop"|"length",
//  "logprobs":[{"token","logprob","top":[{"token","logprob"}...]}...] or null,
//  "timings":{"prefill_s","decode_s","prefill_tokens_per_s","decode_tokens_per_s"}}
// `text` leaves out an end token and replaces invalid UTF-8 by U+FFFD.
std::string RunResultJson(const std::vector<TokenId>& prompt, const engine::GenerateResult& result,
                          const SamplingParams& sampling, const text::Tokenizer& tokenizer);

}  // namespace baton::cli
