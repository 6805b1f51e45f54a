#pragma once

// The request bodies of Text Generation Inference's /generate and /generate_stream. Pure.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "router/openai_request.h"

namespace baton::router {

struct TgiOptions {
  bool details = false;
  bool full_text = false;  // the prompt, then the answer
  std::string prompt;      // the inputs
  bool has_stop = false;   // stop strings were given
  bool has_seed = false;
  uint64_t seed = 0;
};

// The request, of one prompt and one choice, with the endpoint kGenerate; its sampling has
// logprobs, for TGI's tokens carry them. InvalidArgument as ParseOpenAiRequest.
absl::StatusOr<OpenAiRequest> ParseTgiRequest(std::string_view body, bool stream,
                                              const RequestLimits& limits, TgiOptions* options,
                                              std::string* error_param);

}  // namespace baton::router
