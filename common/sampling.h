#pragma once

// What a client asks of the sampler. Plain data shared by the router (which checks it), the wire
// and the engine (which obeys it). docs/api.md gives every field's meaning for clients.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"

namespace baton {

struct SamplingParams {
  float temperature = 1.0f;  // [0, 100]; 0 is greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  float repetition_penalty =
      1.0f;                       // (0, 100]; over prompt and output, as in CTRL (arXiv 1909.05858)
  float presence_penalty = 0.0f;  // [-2, 2]; over output
  float frequency_penalty = 0.0f;                     // [-2, 2]; over output
  std::vector<std::pair<TokenId, float>> logit_bias;  // at most 1,024; bias in [-100, 100]
  uint64_t seed = 0;                    // randomness is a function of (seed, position) only
  int32_t max_tokens = 16;              // at least 1
  int32_t min_tokens = 0;               // no end-of-sequence or stop token before this many
  std::vector<TokenId> stop_token_ids;  // at most 64; beside the model's own end tokens
  // Nothing else is sampled, end tokens neither; at most 4,096, without a constraint. Empty: all.
  std::vector<TokenId> allowed_token_ids;
  // At most 512 sequences of 1 to 256 tokens that the output does not contain.
  std::vector<std::vector<TokenId>> bad_words;
  bool ignore_eos = false;
  bool watermark = false;  // engine/watermark.h
  // What the output must be, as grammar/constraint.h has it; "": anything. Then end tokens come
  // only where it is satisfied, and the output ends where it can only end.
  std::string constraint;
  int32_t logprobs = -1;  // -1: none; 0: the chosen token's; n: and the n best, n <= 20
  // Of the prompt's tokens but the first, likewise. Such a prompt takes nothing from a prefix
  // cache.
  int32_t prompt_logprobs = -1;
};

// InvalidArgument with the field, its value and its range when a value is out of range or not
// finite, or a token id is not in [0, vocab_size).
absl::Status CheckSamplingParams(const SamplingParams& params, int32_t vocab_size);

enum class FinishReason { kStop, kLength };  // end or stop token; max_tokens or context length

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

// One generated token. `position` counts output tokens from 0.
struct OutputToken {
  TokenId token = 0;
  int32_t position = 0;
  float logprob = 0;              // natural logarithm; only when asked for
  std::vector<TokenLogprob> top;  // best first; only when asked for
};

// A token of the prompt, as the model saw it coming: logits as they are, before any bias, penalty
// or temperature.
struct PromptScore {
  int32_t position = 0;  // in the prompt, from 1
  TokenId token = 0;
  float logprob = 0;
  int32_t rank = 0;  // 1: the most likely
  std::vector<TokenLogprob> top;
};

}  // namespace baton
