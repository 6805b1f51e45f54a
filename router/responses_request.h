#pragma once

// The request bodies of OpenAI's Responses API, as far as it is text: one answer to a list of
// messages. Pure.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "router/openai_request.h"

namespace baton::router {

// What an answer repeats of its request: JSON values.
struct ResponsesOptions {
  std::string id;  // behind "resp_" and "msg_"
  std::string model;
  int64_t created_s = 0;  // Unix time
  std::string instructions = "null";
  std::string max_output_tokens = "null";
  std::string format = R"({"type":"text"})";
  std::string metadata = "{}";
  float temperature = 1;
  float top_p = 1;
};

// InvalidArgument as ParseOpenAiRequest, also for what is more than text: tools, earlier responses
// by id, other than text in messages. `options` gets all but id, model and time.
absl::StatusOr<OpenAiRequest> ParseResponsesRequest(std::string_view body,
                                                    const RequestLimits& limits,
                                                    ResponsesOptions* options,
                                                    std::string* error_param);

}  // namespace baton::router
