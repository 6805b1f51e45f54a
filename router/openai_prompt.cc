#include "router/openai_prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "router/json_fields.h"
#include "router/tool_fields.h"

namespace baton::router {
namespace {

namespace json = boost::json;

absl::Status Missing(std::string_view where, std::string_view field) {
  return absl::InvalidArgumentError(fmt::format("'{}.{}' is missing", where, field));
}

absl::StatusOr<std::string> ReadPart(const json::value& part, const std::string& where) {
  if (!part.is_object()) return WrongType(where, "an object", part);
  const json::object& object = part.get_object();
  const json::value* type = object.if_contains("type");
  if (type == nullptr) return Missing(where, "type");
  if (!type->is_string()) return WrongType(where + ".type", "a string", *type);
  const std::string_view name(type->get_string().data(), type->get_string().size());
  if (name != "text") {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' is a part of type '{}'; only 'text' is supported", where, name.substr(0, 64)));
  }
  const json::value* text = object.if_contains("text");
  if (text == nullptr) return Missing(where, "text");
  return JsonText(*text, where + ".text");
}

absl::StatusOr<std::string> ReadContent(const json::value& content, const std::string& where) {
  if (content.is_string()) return JsonText(content, where);
  if (!content.is_array()) return WrongType(where, "a string or an array of text parts", content);
  std::string joined;
  size_t index = 0;
  for (const json::value& part : content.get_array()) {
    BATON_ASSIGN_OR_RETURN(const std::string text,
                           ReadPart(part, fmt::format("{}[{}]", where, index)));
    if (index > 0) joined += '\n';
    joined += text;
    ++index;
  }
  return joined;
}

absl::StatusOr<std::string> ReadRole(const json::value& value, const std::string& where) {
  BATON_ASSIGN_OR_RETURN(std::string role, JsonText(value, where));
  if (role == "developer") return std::string("system");
  if (role == "system" || role == "user" || role == "assistant" || role == "tool") return role;
  return absl::InvalidArgumentError(
      fmt::format("'{}' is '{}', but must be system, developer, user, assistant or tool", where,
                  role.substr(0, 64)));
}

// Fields of a message beside role and content: some do not matter here, the others must be empty.
absl::Status CheckMessageFields(const json::object& message, const std::string& where) {
  static const std::vector<std::string> known = {
      "role", "content", "name", "tool_call_id", "tool_calls", "function_call", "refusal", "audio"};
  for (const json::key_value_pair& entry : message) {
    const std::string name(entry.key().data(), entry.key().size());
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(fmt::format("unknown field '{}.{}'{}", where,
                                                    name.substr(0, 64), DidYouMean(name, known)));
    }
    const bool must_be_empty = name == "function_call" || name == "refusal" || name == "audio";
    const json::value& value = entry.value();
    const bool empty = value.is_null() || (value.is_array() && value.get_array().empty());
    if (must_be_empty && !empty) {
      return absl::InvalidArgumentError(fmt::format("'{}.{}' is not supported", where, name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<text::ChatMessage> ReadMessage(const json::value& value, const std::string& where) {
  if (!value.is_object()) return WrongType(where, "an object", value);
  const json::object& object = value.get_object();
  BATON_RETURN_IF_ERROR(CheckMessageFields(object, where));
  const json::value* role = object.if_contains("role");
  if (role == nullptr) return Missing(where, "role");
  text::ChatMessage message;
  BATON_ASSIGN_OR_RETURN(message.role, ReadRole(*role, where + ".role"));
  BATON_RETURN_IF_ERROR(ReadToolParts(object, where, &message));
  const json::value* content = object.if_contains("content");
  const bool no_content = content == nullptr || content->is_null();
  if (no_content && !message.tool_calls.empty()) return message;
  if (content == nullptr) return Missing(where, "content");
  BATON_ASSIGN_OR_RETURN(message.content, ReadContent(*content, where + ".content"));
  return message;
}

absl::StatusOr<Prompt> ReadPrompt(const json::value& value, const std::string& where) {
  if (value.is_array()) {
    BATON_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, JsonTokens(value.get_array(), where));
    if (tokens.empty()) {
      return absl::InvalidArgumentError(fmt::format("'{}' has no tokens", where));
    }
    return Prompt(std::move(tokens));
  }
  if (!value.is_string()) return WrongType(where, "a string or an array of token ids", value);
  BATON_ASSIGN_OR_RETURN(std::string text, JsonText(value, where));
  return Prompt(std::move(text));
}

}  // namespace

absl::StatusOr<std::vector<text::ChatMessage>> ReadMessages(const json::value& value,
                                                            const RequestLimits& limits) {
  if (!value.is_array()) return WrongType("messages", "an array", value);
  const json::array& array = value.get_array();
  if (array.empty() || array.size() > limits.max_messages) {
    return absl::InvalidArgumentError(fmt::format(
        "'messages' has {} messages, but must have 1 to {}", array.size(), limits.max_messages));
  }
  std::vector<text::ChatMessage> messages;
  messages.reserve(array.size());
  for (const json::value& element : array) {
    const std::string where = fmt::format("messages[{}]", messages.size());
    BATON_ASSIGN_OR_RETURN(text::ChatMessage message, ReadMessage(element, where));
    messages.push_back(std::move(message));
  }
  return messages;
}

absl::Status ReadAnswerPlace(FieldReader& fields, GenerateInput* input) {
  input->add_generation_prompt = true;
  BATON_RETURN_IF_ERROR(fields.Read("continue_final_message", &input->continue_final_message));
  if (input->continue_final_message && fields.Find("add_generation_prompt") == nullptr) {
    input->add_generation_prompt = false;
  }
  BATON_RETURN_IF_ERROR(fields.Read("add_generation_prompt", &input->add_generation_prompt));
  if (!input->continue_final_message || !input->add_generation_prompt) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "'continue_final_message' and 'add_generation_prompt' exclude each other");
}

absl::StatusOr<std::vector<Prompt>> ReadPrompts(const json::value& value,
                                                const RequestLimits& limits) {
  std::vector<Prompt> prompts;
  const bool one =
      value.is_string() || (value.is_array() && !value.get_array().empty() &&
                            !value.get_array()[0].is_string() && !value.get_array()[0].is_array());
  if (one) {
    BATON_ASSIGN_OR_RETURN(prompts.emplace_back(), ReadPrompt(value, "prompt"));
    return prompts;
  }
  if (!value.is_array()) {
    return WrongType("prompt", "a string, an array of strings or an array of token ids", value);
  }
  const json::array& array = value.get_array();
  if (array.empty() || array.size() > limits.max_prompts) {
    return absl::InvalidArgumentError(fmt::format("'prompt' has {} prompts, but must have 1 to {}",
                                                  array.size(), limits.max_prompts));
  }
  for (const json::value& element : array) {
    const std::string where = fmt::format("prompt[{}]", prompts.size());
    if (element.is_array() != array[0].is_array()) {
      return WrongType(where, array[0].is_array() ? "an array of token ids" : "a string", element);
    }
    BATON_ASSIGN_OR_RETURN(Prompt prompt, ReadPrompt(element, where));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace baton::router
