#include "common/sampling.h"

#include <fmt/format.h>

#include <cmath>

#include "common/status_macros.h"

namespace baton {
namespace {

absl::Status CheckRange(const char* field, float value, float low, float high, bool open_low) {
  const bool above = open_low ? value > low : value >= low;
  if (std::isfinite(value) && above && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} is {}, but must be in {}{}, {}]", field, value,
                                                open_low ? '(' : '[', low, high));
}

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must be in [{}, {}]", field, value, low, high));
}

absl::Status CheckTokensLeft(const SamplingParams& params, int32_t vocab_size) {
  BATON_RETURN_IF_ERROR(CheckRange("number of allowed_token_ids",
                                   static_cast<int64_t>(params.allowed_token_ids.size()), 0, 4096));
  for (const TokenId token : params.allowed_token_ids) {
    BATON_RETURN_IF_ERROR(CheckRange("allowed_token_ids entry", token, 0, vocab_size - 1));
  }
  if (!params.allowed_token_ids.empty() && !params.constraint.empty()) {
    return absl::InvalidArgumentError(
        "allowed_token_ids and a constraint of the answer exclude each other");
  }
  BATON_RETURN_IF_ERROR(CheckRange("number of token sequences of bad_words",
                                   static_cast<int64_t>(params.bad_words.size()), 0, 512));
  for (const std::vector<TokenId>& word : params.bad_words) {
    BATON_RETURN_IF_ERROR(
        CheckRange("tokens of one of bad_words", static_cast<int64_t>(word.size()), 1, 256));
    for (const TokenId token : word) {
      BATON_RETURN_IF_ERROR(CheckRange("bad_words token", token, 0, vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSamplingParams(const SamplingParams& params, int32_t vocab_size) {
  BATON_RETURN_IF_ERROR(CheckRange("temperature", params.temperature, 0, 100, false));
  BATON_RETURN_IF_ERROR(CheckRange("top_k", params.top_k, 0, INT32_MAX));
  BATON_RETURN_IF_ERROR(CheckRange("top_p", params.top_p, 0, 1, true));
  BATON_RETURN_IF_ERROR(CheckRange("min_p", params.min_p, 0, 1, false));
  BATON_RETURN_IF_ERROR(CheckRange("repetition_penalty", params.repetition_penalty, 0, 100, true));
  BATON_RETURN_IF_ERROR(CheckRange("presence_penalty", params.presence_penalty, -2, 2, false));
  BATON_RETURN_IF_ERROR(CheckRange("frequency_penalty", params.frequency_penalty, -2, 2, false));
  BATON_RETURN_IF_ERROR(CheckRange("max_tokens", params.max_tokens, 1, INT32_MAX));
  BATON_RETURN_IF_ERROR(CheckRange("min_tokens", params.min_tokens, 0, params.max_tokens));
  BATON_RETURN_IF_ERROR(CheckRange("logprobs", params.logprobs, -1, 20));
  BATON_RETURN_IF_ERROR(CheckRange("prompt_logprobs", params.prompt_logprobs, -1, 20));
  BATON_RETURN_IF_ERROR(CheckRange("number of logit_bias entries",
                                   static_cast<int64_t>(params.logit_bias.size()), 0, 1024));
  BATON_RETURN_IF_ERROR(CheckRange("number of stop_token_ids",
                                   static_cast<int64_t>(params.stop_token_ids.size()), 0, 64));
  BATON_RETURN_IF_ERROR(CheckRange("bytes of the constraint",
                                   static_cast<int64_t>(params.constraint.size()), 0,
                                   int64_t{64} << 10));
  for (const auto& [token, bias] : params.logit_bias) {
    BATON_RETURN_IF_ERROR(CheckRange("logit_bias token", token, 0, vocab_size - 1));
    BATON_RETURN_IF_ERROR(CheckRange("logit_bias value", bias, -100, 100, false));
  }
  for (const TokenId token : params.stop_token_ids) {
    BATON_RETURN_IF_ERROR(CheckRange("stop_token_ids entry", token, 0, vocab_size - 1));
  }
  return CheckTokensLeft(params, vocab_size);
}

}  // namespace baton
