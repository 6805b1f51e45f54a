#pragma once

// vLLM's /tokenize and /detokenize. Thread-safe.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "router/dispatcher.h"

namespace baton::router {

// {"prompt": TEXT, "add_special_tokens": true} or {"messages": [...], "tools": [...]} to
// {"count", "max_model_len", "tokens", "token_strs"}. `error_param` as ParseOpenAiRequest's.
absl::StatusOr<std::string> AnswerTokenize(const Dispatcher& dispatcher, std::string_view body,
                                           const RequestLimits& limits, std::string* error_param);

// {"tokens": [...]} to {"prompt": TEXT}.
absl::StatusOr<std::string> AnswerDetokenize(const Dispatcher& dispatcher, std::string_view body,
                                             std::string* error_param);

}  // namespace baton::router
