#pragma once

// Pieces of OpenAI's answers: log probabilities in both forms, usage, statistics.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "router/request.h"

namespace baton::router {

std::string_view FinishName(FinishReason reason);  // "stop", "length"

// "[1,2,3]".
void AppendTokenIds(std::span<const TokenId> tokens, std::string* out);
void AppendTokenIds(std::span<const TokenDetail> tokens, std::string* out);

// Elements of choices[].logprobs.content of a chat, with a comma before each when `out` does not
// end in '['. Every token has its raw bytes beside its text.
void AppendChatLogprobs(std::span<const TokenDetail> tokens, std::string* out);

// choices[].logprobs of a completion: four parallel arrays. Tokens that are not UTF-8 by themselves
// are written as "bytes:\xe2\x80". text_offset counts characters from the answer's beginning.
struct LegacyLogprobs {
  std::string tokens, token_logprobs, top_logprobs, text_offset;  // array elements

  // Advances `offset` by the characters of `details`.
  void Add(std::span<const TokenDetail> details, int64_t* offset);
  // Those of the prompt; its first token's are null.
  void AddPrompt(const Delta& delta, int64_t* offset);
  void AppendTo(std::string* out) const;
};

// Elements of vLLM's prompt_logprobs, with a comma before each but the first: null for the prompt's
// first token, else the token and the best by id:
// {"17":{"logprob":..,"rank":..,"decoded_token":..}}.
void AppendPromptLogprobs(const Delta& delta, std::string* out);

// `"usage":{...}` over all choices; a prompt counts once, however many choices it has.
void AppendUsage(std::span<const Finish> finishes, int32_t choices_per_prompt, std::string* out);

// `"baton":{...}`: choice 0's statistics; with more choices, all of them in "choices" too.
void AppendStats(std::span<const Finish> finishes, std::string* out);

}  // namespace baton::router
