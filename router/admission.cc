#include "router/admission.h"

#include <fmt/format.h>

#include "common/status_macros.h"
#include "router/error_code.h"

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

}  // namespace

absl::Status Admit(GenerateInput& input, size_t prompt_tokens, int32_t context_tokens,
                   int32_t vocab_size, const RequestLimits& limits) {
  if (prompt_tokens == 0) return absl::InvalidArgumentError("the prompt is empty: it has 0 tokens");
  if (prompt_tokens >= static_cast<size_t>(context_tokens)) {
    return TooLong(fmt::format("prompt has {} tokens, but the context is {} tokens", prompt_tokens,
                               context_tokens));
  }
  SamplingParams& sampling = input.sampling;
  const int32_t room = context_tokens - static_cast<int32_t>(prompt_tokens);
  if (!input.has_max_tokens) sampling.max_tokens = room;
  BATON_RETURN_IF_ERROR(CheckSamplingParams(sampling, vocab_size));
  if (sampling.max_tokens > room) {
    return TooLong(fmt::format(
        "prompt has {} tokens and max_tokens is {}, together {}, but the context is {} tokens",
        prompt_tokens, sampling.max_tokens, int64_t{sampling.max_tokens} + context_tokens - room,
        context_tokens));
  }
  return CheckStopStrings(input.stop, limits);
}

}  // namespace baton::router
