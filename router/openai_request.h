#pragma once

// OpenAI's request bodies to GenerateInput. Pure; thread-safe. docs/api.md lists the fields.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "router/request.h"

namespace baton::router {

enum class Endpoint { kChat, kCompletions };

struct OpenAiRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::vector<GenerateInput> prompts;  // one for chat; at most RequestLimits::max_prompts
  int32_t choices_per_prompt = 1;      // 'n'
  bool stream = false;
  bool include_usage = false;
  bool return_stats = false;
  bool return_token_ids = false;

  int32_t choices() const { return static_cast<int32_t>(prompts.size()) * choices_per_prompt; }
  // What choice `index` asks of the dispatcher: its prompt's input; a given seed counts up within
  // the prompt's choices.
  GenerateInput Choice(int32_t index) const;
};

// InvalidArgument for unsound JSON, unknown fields (naming the nearest known one), wrong types,
// missing fields, values over `limits`, and fields that would change the answer in a way that Baton
// cannot. `error_param` is then the field's name, or "". Ranges of sampling values are the
// dispatcher's to check: it knows the vocabulary.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(Endpoint endpoint, std::string_view body,
                                                 const RequestLimits& limits,
                                                 std::string* error_param);

}  // namespace baton::router
