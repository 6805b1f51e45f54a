#include "router/admission.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"
#include "router/error_code.h"
#include "text/bad_words.h"

namespace baton::router {
namespace {

absl::Status CheckStopStrings(const std::vector<std::string>& stops, const RequestLimits& limits) {
  if (stops.size() > limits.max_stop_strings) {
    return absl::InvalidArgumentError(fmt::format("there are {} stop strings, but the limit is {}",
                                                  stops.size(), limits.max_stop_strings));
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) return absl::InvalidArgumentError("a stop string is empty");
    if (stop.size() > limits.max_stop_bytes) {
      return absl::InvalidArgumentError(fmt::format(
          "a stop string has {} bytes, but the limit is {}", stop.size(), limits.max_stop_bytes));
    }
    if ((static_cast<unsigned char>(stop[0]) & 0xC0) == 0x80) {
      return absl::InvalidArgumentError("a stop string begins in the middle of a UTF-8 character");
    }
  }
  return absl::OkStatus();
}

absl::Status TooLong(const std::string& text) {
  return WithErrorCode(absl::InvalidArgumentError(text), kContextLengthExceeded);
}

absl::Status CheckTotal(const GenerateInput& input, size_t prompt_tokens,
                        const RequestLimits& limits) {
  if (limits.max_total_tokens == 0) return absl::OkStatus();
  const int64_t answer = input.has_max_tokens ? input.sampling.max_tokens : 1;
  const int64_t total = static_cast<int64_t>(prompt_tokens) + answer;
  if (total <= limits.max_total_tokens) return absl::OkStatus();
  return TooLong(fmt::format(
      "prompt has {} tokens and the answer at least {}, together {}, but the limit is {} "
      "(--max-total-tokens)",
      prompt_tokens, answer, total, limits.max_total_tokens));
}

absl::Status CheckResume(const GenerateInput& input, int32_t vocab_size) {
  const std::vector<TokenId>& tokens = input.resume_tokens;
  if (tokens.empty()) return absl::OkStatus();
  if (!input.has_seed && input.sampling.temperature > 0) {
    return absl::InvalidArgumentError(
        "resume_tokens need the seed that the answer began with, or temperature 0");
  }
  if (tokens.size() > static_cast<size_t>(input.sampling.max_tokens)) {
    return absl::InvalidArgumentError(
        fmt::format("resume_tokens has {} tokens, but max_tokens is {}", tokens.size(),
                    input.sampling.max_tokens));
  }
  for (const TokenId token : tokens) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          fmt::format("resume_tokens has the token {}, but the vocabulary has ids 0 to {}", token,
                      vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPromptLogprobs(const GenerateInput& input, size_t prompt_tokens,
                                 const RequestLimits& limits) {
  const int32_t best = input.sampling.prompt_logprobs;
  if (best < 0) return absl::OkStatus();
  if (!input.resume_tokens.empty()) {
    return absl::InvalidArgumentError(
        "log probabilities of the prompt and resume_tokens exclude each other");
  }
  const size_t values = prompt_tokens * (static_cast<size_t>(best) + 1);
  if (values <= limits.max_prompt_logprobs) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("log probabilities of a prompt of {} tokens, with the {} best of each, are {} "
                  "values, but the "
                  "limit is {}",
                  prompt_tokens, best, values, limits.max_prompt_logprobs));
}

}  // namespace

absl::Status TokenizeBadWords(GenerateInput& input, const text::Tokenizer& tokenizer,
                              const RequestLimits& limits) {
  const std::vector<std::string>& words = input.bad_words;
  if (words.size() > limits.max_bad_words) {
    return absl::InvalidArgumentError(fmt::format("bad_words has {} texts, but the limit is {}",
                                                  words.size(), limits.max_bad_words));
  }
  for (const std::string& word : words) {
    if (!word.empty() && word.size() <= limits.max_bad_word_bytes) continue;
    return absl::InvalidArgumentError(
        fmt::format("bad_words has a text of {} bytes, but each must have 1 to {}", word.size(),
                    limits.max_bad_word_bytes));
  }
  input.sampling.bad_words = text::BadWordTokens(tokenizer, words);
  return absl::OkStatus();
}

absl::Status Admit(GenerateInput& input, size_t prompt_tokens, int32_t context_tokens,
                   int32_t vocab_size, const RequestLimits& limits) {
  if (prompt_tokens == 0) return absl::InvalidArgumentError("the prompt is empty: it has 0 tokens");
  if (prompt_tokens >= static_cast<size_t>(context_tokens)) {
    return TooLong(fmt::format("prompt has {} tokens, but the context is {} tokens", prompt_tokens,
                               context_tokens));
  }
  if (limits.max_input_tokens > 0 && prompt_tokens > static_cast<size_t>(limits.max_input_tokens)) {
    return TooLong(fmt::format("prompt has {} tokens, but the limit is {} (--max-input-tokens)",
                               prompt_tokens, limits.max_input_tokens));
  }
  BATON_RETURN_IF_ERROR(CheckTotal(input, prompt_tokens, limits));
  SamplingParams& sampling = input.sampling;
  const int32_t room = context_tokens - static_cast<int32_t>(prompt_tokens);
  if (!input.has_max_tokens) {
    sampling.max_tokens =
        limits.max_total_tokens == 0
            ? room
            : std::min(room, limits.max_total_tokens - static_cast<int32_t>(prompt_tokens));
  }
  BATON_RETURN_IF_ERROR(CheckSamplingParams(sampling, vocab_size));
  if (sampling.max_tokens > room) {
    return TooLong(fmt::format(
        "prompt has {} tokens and max_tokens is {}, together {}, but the context is {} tokens",
        prompt_tokens, sampling.max_tokens, int64_t{sampling.max_tokens} + context_tokens - room,
        context_tokens));
  }
  if (input.cache_salt.size() > limits.max_salt_bytes) {
    return absl::InvalidArgumentError(fmt::format("cache_salt has {} bytes, but the limit is {}",
                                                  input.cache_salt.size(), limits.max_salt_bytes));
  }
  BATON_RETURN_IF_ERROR(CheckResume(input, vocab_size));
  BATON_RETURN_IF_ERROR(CheckPromptLogprobs(input, prompt_tokens, limits));
  return CheckStopStrings(input.stop, limits);
}

}  // namespace baton::router
