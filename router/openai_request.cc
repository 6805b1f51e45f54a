#include "router/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "router/constraint_fields.h"
#include "router/json_fields.h"
#include "router/openai_fields.h"
#include "router/openai_prompt.h"
#include "router/tool_fields.h"

namespace baton::router {
namespace {

namespace json = boost::json;

absl::Status CheckCount(std::string_view field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is {}, but must be in [{}, {}]", field, value, least, most));
}

absl::Status ReadSeed(FieldReader& fields, GenerateInput& input) {
  const json::value* seed = fields.Find("seed");
  if (seed == nullptr) return absl::OkStatus();
  if (seed->is_int64()) {
    input.sampling.seed = static_cast<uint64_t>(seed->get_int64());  // negative ones wrap around
  } else if (seed->is_uint64()) {
    input.sampling.seed = seed->get_uint64();
  } else {
    return WrongType("seed", "an integer", *seed);
  }
  input.has_seed = true;
  return absl::OkStatus();
}

absl::Status ReadLogitBias(FieldReader& fields, SamplingParams& sampling) {
  const json::value* bias = fields.Find("logit_bias");
  if (bias == nullptr) return absl::OkStatus();
  if (!bias->is_object()) return WrongType("logit_bias", "an object", *bias);
  for (const json::key_value_pair& entry : bias->get_object()) {
    const std::string_view key(entry.key().data(), entry.key().size());
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0) {
      return absl::InvalidArgumentError(
          fmt::format("'logit_bias' has the key '{}', which is not a token id", key.substr(0, 32)));
    }
    BATON_ASSIGN_OR_RETURN(const float value,
                           JsonFloat(entry.value(), fmt::format("logit_bias.{}", key)));
    sampling.logit_bias.emplace_back(token, value);
  }
  return absl::OkStatus();
}

absl::Status ReadStop(FieldReader& fields, const RequestLimits& limits, GenerateInput& input) {
  const json::value* stop = fields.Find("stop");
  if (stop == nullptr) return absl::OkStatus();
  if (stop->is_string()) {
    BATON_ASSIGN_OR_RETURN(input.stop.emplace_back(), JsonText(*stop, "stop"));
  } else if (stop->is_array()) {
    BATON_RETURN_IF_ERROR(CheckCount("number of stop strings",
                                     static_cast<int64_t>(stop->get_array().size()), 0,
                                     static_cast<int64_t>(limits.max_stop_strings)));
    for (const json::value& element : stop->get_array()) {
      const std::string where = fmt::format("stop[{}]", input.stop.size());
      BATON_ASSIGN_OR_RETURN(std::string text, JsonText(element, where));
      input.stop.push_back(std::move(text));
    }
  } else {
    return WrongType("stop", "a string or an array of strings", *stop);
  }
  for (const std::string& text : input.stop) {
    BATON_RETURN_IF_ERROR(CheckCount("bytes of a stop string", static_cast<int64_t>(text.size()), 1,
                                     static_cast<int64_t>(limits.max_stop_bytes)));
  }
  return absl::OkStatus();
}

absl::Status ReadTokensLeft(FieldReader& fields, GenerateInput& input) {
  if (const json::value* tokens = fields.Find("allowed_token_ids")) {
    if (!tokens->is_array()) {
      return WrongType("allowed_token_ids", "an array of token ids", *tokens);
    }
    if (tokens->get_array().empty()) {
      return absl::InvalidArgumentError("'allowed_token_ids' is empty: no token would be left");
    }
    BATON_ASSIGN_OR_RETURN(input.sampling.allowed_token_ids,
                           JsonTokens(tokens->get_array(), "allowed_token_ids"));
  }
  const json::value* words = fields.Find("bad_words");
  if (words == nullptr) return absl::OkStatus();
  if (!words->is_array()) return WrongType("bad_words", "an array of strings", *words);
  for (const json::value& word : words->get_array()) {
    const std::string where = fmt::format("bad_words[{}]", input.bad_words.size());
    BATON_ASSIGN_OR_RETURN(std::string text, JsonText(word, where));
    input.bad_words.push_back(std::move(text));
  }
  return absl::OkStatus();
}

absl::Status ReadLogprobs(Endpoint endpoint, FieldReader& fields, SamplingParams& sampling) {
  if (endpoint == Endpoint::kCompletions) {
    int32_t logprobs = -1;
    BATON_RETURN_IF_ERROR(fields.Read("logprobs", &logprobs));
    if (fields.Find("logprobs") != nullptr) {
      BATON_RETURN_IF_ERROR(CheckCount("logprobs", logprobs, 0, 20));
    }
    sampling.logprobs = logprobs;
    return absl::OkStatus();
  }
  bool wanted = false;
  int32_t top = 0;
  BATON_RETURN_IF_ERROR(fields.Read("logprobs", &wanted));
  BATON_RETURN_IF_ERROR(fields.Read("top_logprobs", &top));
  BATON_RETURN_IF_ERROR(CheckCount("top_logprobs", top, 0, 20));
  if (top > 0 && !wanted) {
    return absl::InvalidArgumentError("'top_logprobs' needs 'logprobs': true");
  }
  sampling.logprobs = wanted ? top : -1;
  return absl::OkStatus();
}

absl::Status ReadMaxTokens(Endpoint endpoint, FieldReader& fields, GenerateInput& input) {
  // OpenAI's completions stop after 16 tokens unless told otherwise; chats go on to the end.
  input.has_max_tokens = endpoint == Endpoint::kCompletions;
  if (const json::value* value = fields.Find("max_tokens")) {
    input.has_max_tokens = true;
    BATON_ASSIGN_OR_RETURN(input.sampling.max_tokens, JsonInt(*value, "max_tokens"));
    BATON_RETURN_IF_ERROR(CheckCount("max_tokens", input.sampling.max_tokens, 1, INT32_MAX));
  }
  const json::value* value = fields.Find("max_completion_tokens");
  if (value == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const int32_t max_tokens, JsonInt(*value, "max_completion_tokens"));
  BATON_RETURN_IF_ERROR(CheckCount("max_completion_tokens", max_tokens, 1, INT32_MAX));
  if (input.has_max_tokens && input.sampling.max_tokens != max_tokens) {
    return absl::InvalidArgumentError(
        fmt::format("'max_completion_tokens' is {}, but 'max_tokens' is {}; give one of them",
                    max_tokens, input.sampling.max_tokens));
  }
  input.sampling.max_tokens = max_tokens;
  input.has_max_tokens = true;
  return absl::OkStatus();
}

// The first of these that is given; a user is the least exact.
absl::Status ReadSession(FieldReader& fields, std::string* session) {
  for (const char* name : {"session_id", "prompt_cache_key", "user"}) {
    std::string text;
    BATON_RETURN_IF_ERROR(fields.Read(name, &text));
    if (session->empty()) *session = std::move(text);
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(Endpoint endpoint, FieldReader& fields, const RequestLimits& limits,
                          GenerateInput& input) {
  SamplingParams& sampling = input.sampling;
  BATON_RETURN_IF_ERROR(fields.Read("model", &input.model));
  BATON_RETURN_IF_ERROR(fields.Read("cache_salt", &input.cache_salt));
  BATON_RETURN_IF_ERROR(ReadSession(fields, &input.session));
  BATON_RETURN_IF_ERROR(fields.Read("temperature", &sampling.temperature));
  BATON_RETURN_IF_ERROR(fields.Read("top_p", &sampling.top_p));
  BATON_RETURN_IF_ERROR(fields.Read("top_k", &sampling.top_k));
  BATON_RETURN_IF_ERROR(fields.Read("min_p", &sampling.min_p));
  BATON_RETURN_IF_ERROR(fields.Read("repetition_penalty", &sampling.repetition_penalty));
  BATON_RETURN_IF_ERROR(fields.Read("presence_penalty", &sampling.presence_penalty));
  BATON_RETURN_IF_ERROR(fields.Read("frequency_penalty", &sampling.frequency_penalty));
  BATON_RETURN_IF_ERROR(fields.Read("min_tokens", &sampling.min_tokens));
  BATON_RETURN_IF_ERROR(fields.Read("ignore_eos", &sampling.ignore_eos));
  BATON_RETURN_IF_ERROR(fields.Read("watermark", &sampling.watermark));
  BATON_RETURN_IF_ERROR(fields.Read("add_special_tokens", &input.add_special_tokens));
  BATON_RETURN_IF_ERROR(fields.Read("truncate_prompt_tokens", &input.truncate_prompt_tokens));
  bool skip_special_tokens = true;
  BATON_RETURN_IF_ERROR(fields.Read("skip_special_tokens", &skip_special_tokens));
  input.show_special_tokens = !skip_special_tokens;
  BATON_RETURN_IF_ERROR(fields.Read("include_stop_str_in_output", &input.include_stop));
  if (const json::value* tokens = fields.Find("stop_token_ids")) {
    if (!tokens->is_array()) return WrongType("stop_token_ids", "an array of token ids", *tokens);
    BATON_ASSIGN_OR_RETURN(sampling.stop_token_ids,
                           JsonTokens(tokens->get_array(), "stop_token_ids"));
  }
  BATON_RETURN_IF_ERROR(ReadSeed(fields, input));
  BATON_RETURN_IF_ERROR(ReadLogitBias(fields, sampling));
  BATON_RETURN_IF_ERROR(ReadStop(fields, limits, input));
  BATON_RETURN_IF_ERROR(ReadTokensLeft(fields, input));
  BATON_RETURN_IF_ERROR(ReadLogprobs(endpoint, fields, sampling));
  BATON_ASSIGN_OR_RETURN(sampling.constraint, ReadConstraint(fields));
  return ReadMaxTokens(endpoint, fields, input);
}

absl::Status ReadStreamOptions(FieldReader& fields, OpenAiRequest& request) {
  const json::value* options = fields.Find("stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!options->is_object()) return WrongType("stream_options", "an object", *options);
  if (!request.stream) {
    return absl::InvalidArgumentError("'stream_options' needs 'stream': true");
  }
  const std::vector<std::string> known = {"include_usage", "include_obfuscation"};
  for (const json::key_value_pair& entry : options->get_object()) {
    const std::string name(entry.key().data(), entry.key().size());
    if (name == "include_usage") {
      if (entry.value().is_null()) continue;
      if (!entry.value().is_bool()) {
        return WrongType("stream_options.include_usage", "a boolean", entry.value());
      }
      request.include_usage = entry.value().get_bool();
    } else if (name != "include_obfuscation") {  // OpenAI's padding of chunks: without effect here
      return absl::InvalidArgumentError(fmt::format("unknown field 'stream_options.{}'{}",
                                                    name.substr(0, 64), DidYouMean(name, known)));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadChoices(FieldReader& fields, const RequestLimits& limits, OpenAiRequest& request) {
  BATON_RETURN_IF_ERROR(fields.Read("n", &request.choices_per_prompt));
  BATON_RETURN_IF_ERROR(CheckCount("n", request.choices_per_prompt, 1, limits.max_choices));
  request.shown_per_prompt = request.choices_per_prompt;
  int32_t best_of = request.choices_per_prompt;
  BATON_RETURN_IF_ERROR(fields.Read("best_of", &best_of));
  BATON_RETURN_IF_ERROR(
      CheckCount("best_of", best_of, request.choices_per_prompt, limits.max_choices));
  if (best_of > request.choices_per_prompt && request.stream) {
    return absl::InvalidArgumentError(
        fmt::format("'best_of' {} is more than 'n' {}, which a stream cannot choose from", best_of,
                    request.choices_per_prompt));
  }
  request.choices_per_prompt = best_of;
  return absl::OkStatus();
}

// What is echoed has log probabilities where the answer has.
absl::Status ReadPromptLogprobs(FieldReader& fields, OpenAiRequest& request,
                                SamplingParams& sampling) {
  BATON_RETURN_IF_ERROR(fields.Read("echo", &request.echo));
  const json::value* wanted = fields.Find("prompt_logprobs");
  if (request.echo) sampling.prompt_logprobs = sampling.logprobs;
  if (wanted == nullptr) return absl::OkStatus();
  int32_t most = 0;
  BATON_RETURN_IF_ERROR(fields.Read("prompt_logprobs", &most));
  BATON_RETURN_IF_ERROR(CheckCount("prompt_logprobs", most, 0, 20));
  if (request.stream) {
    return absl::InvalidArgumentError("'prompt_logprobs' is not for streams");
  }
  request.prompt_logprobs = true;
  sampling.prompt_logprobs = std::max(sampling.prompt_logprobs, most);
  return absl::OkStatus();
}

absl::StatusOr<OpenAiRequest> ReadRequest(Endpoint endpoint, const json::object& object,
                                          const RequestLimits& limits, FieldReader& fields) {
  OpenAiRequest request;
  request.endpoint = endpoint;
  BATON_RETURN_IF_ERROR(CheckFieldNames(endpoint, object, fields));
  BATON_RETURN_IF_ERROR(fields.Read("stream", &request.stream));
  BATON_RETURN_IF_ERROR(ReadStreamOptions(fields, request));
  BATON_RETURN_IF_ERROR(fields.Read("return_stats", &request.return_stats));
  BATON_RETURN_IF_ERROR(fields.Read("return_token_ids", &request.return_token_ids));
  BATON_RETURN_IF_ERROR(ReadChoices(fields, limits, request));
  GenerateInput common;
  BATON_RETURN_IF_ERROR(ReadSampling(endpoint, fields, limits, common));
  BATON_RETURN_IF_ERROR(ReadPromptLogprobs(fields, request, common.sampling));
  if (endpoint == Endpoint::kChat) {
    const json::value* messages = fields.Find("messages");
    if (messages == nullptr) return absl::InvalidArgumentError("'messages' is missing");
    BATON_ASSIGN_OR_RETURN(common.prompt, ReadMessages(*messages, limits));
    BATON_RETURN_IF_ERROR(ReadAnswerPlace(fields, &common));
    BATON_ASSIGN_OR_RETURN(request.tools, ReadTools(fields));
    if (request.tools.choice != ToolUse::Choice::kNone) common.tools = request.tools.tools;
    request.prompts.push_back(std::move(common));
    return request;
  }
  const json::value* prompt = fields.Find("prompt");
  if (prompt == nullptr) return absl::InvalidArgumentError("'prompt' is missing");
  BATON_ASSIGN_OR_RETURN(std::vector<Prompt> prompts, ReadPrompts(*prompt, limits));
  for (Prompt& each : prompts) {
    request.prompts.push_back(common);
    request.prompts.back().prompt = std::move(each);
  }
  return request;
}

}  // namespace

GenerateInput OpenAiRequest::Choice(int32_t index) const {
  GenerateInput input = prompts[static_cast<size_t>(index / choices_per_prompt)];
  // The best ones are found by what the log probabilities say.
  if (shown_per_prompt < choices_per_prompt && input.sampling.logprobs < 0) {
    input.sampling.logprobs = 0;
  }
  if (input.has_seed) input.sampling.seed += static_cast<uint64_t>(index % choices_per_prompt);
  return input;
}

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(Endpoint endpoint, std::string_view body,
                                                 const RequestLimits& limits,
                                                 std::string* error_param) {
  error_param->clear();
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  const json::object& object = document.get_object();
  FieldReader fields(object);
  absl::StatusOr<OpenAiRequest> request = ReadRequest(endpoint, object, limits, fields);
  if (!request.ok()) *error_param = fields.field();
  return request;
}

}  // namespace baton::router
