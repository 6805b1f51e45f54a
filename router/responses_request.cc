#include "router/responses_request.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>

#include "common/status_macros.h"
#include "common/view.h"
#include "router/constraint_fields.h"
#include "router/json_fields.h"
#include "router/openai_prompt.h"

namespace baton::router {
namespace {

namespace json = boost::json;

// Fields that ask for what is not there, unless their value is nothing.
constexpr const char* kNotServed[] = {"tools",   "previous_response_id", "conversation", "prompt",
                                      "include", "background",           "reasoning"};

bool IsNothing(const json::value& value) {
  if (value.is_bool()) return !value.get_bool();
  if (value.is_array()) return value.get_array().empty();
  return value.is_object() && value.get_object().empty();
}

absl::Status CheckFields(FieldReader& fields) {
  BATON_RETURN_IF_ERROR(fields.CheckKnown({"model",
                                           "input",
                                           "instructions",
                                           "max_output_tokens",
                                           "temperature",
                                           "top_p",
                                           "stream",
                                           "text",
                                           "metadata",
                                           "store",
                                           "user",
                                           "truncation",
                                           "tool_choice",
                                           "tools",
                                           "service_tier",
                                           "parallel_tool_calls",
                                           "conversation",
                                           "prompt",
                                           "include",
                                           "background",
                                           "reasoning",
                                           "cache_salt",
                                           "prompt_cache_key",
                                           "previous_response_id",
                                           "safety_identifier",
                                           "stream_options"}));
  for (const char* name : kNotServed) {
    const json::value* value = fields.Find(name);
    if (value != nullptr && !IsNothing(*value)) {
      return absl::InvalidArgumentError(fmt::format(
          "'{}' is not supported by /v1/responses here, which answers messages with text", name));
    }
  }
  const json::value* truncation = fields.Find("truncation");
  if (truncation != nullptr && *truncation != "disabled") {
    return absl::InvalidArgumentError("'truncation' must be disabled");
  }
  return absl::OkStatus();
}

// An item of `input` as a chat's message: text parts have another type there.
absl::StatusOr<json::value> MessageOf(const json::value& item, const std::string& where) {
  if (!item.is_object()) return WrongType(where, "an object", item);
  json::object message = item.get_object();
  const json::value* type = message.if_contains("type");
  if (type != nullptr && *type != "message") {
    return absl::InvalidArgumentError(
        fmt::format("'{}.type' must be message: other items are not supported", where));
  }
  for (const char* own : {"type", "id", "status"}) message.erase(own);
  json::value* content = message.if_contains("content");
  if (content == nullptr || !content->is_array()) return json::value(std::move(message));
  for (json::value& part : content->get_array()) {
    if (!part.is_object()) continue;
    json::value* kind = part.get_object().if_contains("type");
    const bool text = kind != nullptr && (*kind == "input_text" || *kind == "output_text");
    if (text) part = json::object{{"type", "text"}, {"text", part.get_object()["text"]}};
  }
  return json::value(std::move(message));
}

absl::StatusOr<std::vector<text::ChatMessage>> ReadInput(FieldReader& fields,
                                                         const RequestLimits& limits,
                                                         ResponsesOptions* options) {
  json::array messages;
  if (const json::value* instructions = fields.Find("instructions")) {
    if (!instructions->is_string()) return WrongType("instructions", "a string", *instructions);
    options->instructions = json::serialize(*instructions);
    messages.push_back(json::object{{"role", "system"}, {"content", *instructions}});
  }
  const size_t before = messages.size();
  const json::value* input = fields.Find("input");
  if (input == nullptr) return absl::InvalidArgumentError("'input' is missing");
  if (input->is_string()) {
    messages.push_back(json::object{{"role", "user"}, {"content", *input}});
  } else if (input->is_array() && !input->get_array().empty()) {
    for (const json::value& item : input->get_array()) {
      const std::string where = fmt::format("input[{}]", messages.size() - before);
      BATON_ASSIGN_OR_RETURN(json::value message, MessageOf(item, where));
      messages.push_back(std::move(message));
    }
  } else {
    return WrongType("input", "a string or an array of messages", *input);
  }
  return ReadMessages(messages, limits);
}

// {"format": {"type": "json_schema", "schema": {...}, ...}}: a chat's response_format, flattened.
absl::StatusOr<std::string> ReadTextFormat(FieldReader& fields, ResponsesOptions* options) {
  const json::value* text = fields.Find("text");
  if (text == nullptr) return "";
  if (!text->is_object()) return WrongType("text", "an object", *text);
  const json::value* format = text->get_object().if_contains("format");
  if (format == nullptr || format->is_null()) return "";
  if (!format->is_object()) return WrongType("text.format", "an object", *format);
  options->format = json::serialize(*format);
  json::object wanted = format->get_object();
  if (const json::value* schema = wanted.if_contains("schema")) {
    wanted = {{"type", wanted["type"]}, {"json_schema", json::object{{"schema", *schema}}}};
  }
  const json::object chat{{"response_format", std::move(wanted)}};
  FieldReader reader(chat);
  return ReadConstraint(reader);
}

absl::StatusOr<OpenAiRequest> ReadResponses(FieldReader& fields, const RequestLimits& limits,
                                            ResponsesOptions* options) {
  BATON_RETURN_IF_ERROR(CheckFields(fields));
  OpenAiRequest request;
  GenerateInput& input = request.prompts.emplace_back();
  BATON_RETURN_IF_ERROR(fields.Read("stream", &request.stream));
  BATON_RETURN_IF_ERROR(fields.Read("model", &input.model));
  BATON_RETURN_IF_ERROR(fields.Read("cache_salt", &input.cache_salt));
  BATON_RETURN_IF_ERROR(fields.Read("temperature", &input.sampling.temperature));
  BATON_RETURN_IF_ERROR(fields.Read("top_p", &input.sampling.top_p));
  options->temperature = input.sampling.temperature;
  options->top_p = input.sampling.top_p;
  if (const json::value* most = fields.Find("max_output_tokens")) {
    BATON_ASSIGN_OR_RETURN(input.sampling.max_tokens, JsonInt(*most, "max_output_tokens"));
    input.has_max_tokens = true;
    options->max_output_tokens = json::serialize(*most);
  }
  if (const json::value* metadata = fields.Find("metadata")) {
    if (!metadata->is_object()) return WrongType("metadata", "an object", *metadata);
    options->metadata = json::serialize(*metadata);
  }
  BATON_ASSIGN_OR_RETURN(input.prompt, ReadInput(fields, limits, options));
  BATON_ASSIGN_OR_RETURN(input.sampling.constraint, ReadTextFormat(fields, options));
  return request;
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseResponsesRequest(std::string_view body,
                                                    const RequestLimits& limits,
                                                    ResponsesOptions* options,
                                                    std::string* error_param) {
  error_param->clear();
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  FieldReader fields(document.get_object());
  absl::StatusOr<OpenAiRequest> request = ReadResponses(fields, limits, options);
  if (!request.ok()) *error_param = fields.field();
  return request;
}

}  // namespace baton::router
