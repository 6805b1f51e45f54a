#pragma once

// OpenAI's request bodies to GenerateInput. Pure; thread-safe. docs/api.md lists the fields.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "router/request.h"
#include "router/tool_calls.h"

namespace baton::router {

// What an HTTP path asks for. The first two are OpenAI's, the next two vLLM's, the last TGI's.
enum class Endpoint {
  kChat,
  kCompletions,
  kTokenize,
  kDetokenize,
  kEmbeddings,
  kResponses,
  kGenerate,
  kGenerateStream
};

struct OpenAiRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::vector<GenerateInput> prompts;  // one for chat; at most RequestLimits::max_prompts
  int32_t choices_per_prompt = 1;      // 'best_of', which is 'n' unless given
  int32_t shown_per_prompt = 1;        // 'n'
  bool echo = false;                   // the prompt before each answer
  bool prompt_logprobs = false;        // vLLM's list of them beside each answer
  bool stream = false;
  bool include_usage = false;
  bool return_stats = false;
  bool return_token_ids = false;
  ToolUse tools;  // of chat

  int32_t choices() const { return static_cast<int32_t>(prompts.size()) * choices_per_prompt; }
  // What choice `index` asks of the dispatcher: its prompt's input; a given seed counts up within
  // the prompt's choices.
  GenerateInput Choice(int32_t index) const;
  // Without copies of a long prompt, where there is one choice.
  GenerateInput OnlyChoice() && { return std::move(prompts.front()); }
};

// InvalidArgument for unsound JSON, unknown fields (naming the nearest known one), wrong types,
// missing fields, values over `limits`, and fields that would change the answer in a way that Baton
// cannot. `error_param` is then the field's name, or "". Ranges of sampling values are the
// dispatcher's to check: it knows the vocabulary.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(Endpoint endpoint, std::string_view body,
                                                 const RequestLimits& limits,
                                                 std::string* error_param);

}  // namespace baton::router
