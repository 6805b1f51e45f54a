#include "router/tool_fields.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <set>
#include <utility>

#include "common/status_macros.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr size_t kMaxTools = 128;
constexpr size_t kMaxToolNameBytes = 64;

absl::Status CheckToolName(const json::value* name, const std::string& where) {
  if (name == nullptr) {
    return absl::InvalidArgumentError(fmt::format("'{}.name' is missing", where));
  }
  BATON_ASSIGN_OR_RETURN(const std::string text, JsonText(*name, where + ".name"));
  const bool plain = text.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789_-.") == std::string::npos;
  if (!text.empty() && text.size() <= kMaxToolNameBytes && plain) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}.name' must be 1 to {} of the characters a-z, A-Z, 0-9, '_', '-' and '.'",
                  where, kMaxToolNameBytes));
}

// {"type": "function", "function": {...}}; the inner object.
absl::StatusOr<const json::object*> FunctionIn(const json::value& value, const std::string& where) {
  if (!value.is_object()) return WrongType(where, "an object", value);
  const json::value* type = value.get_object().if_contains("type");
  const bool is_function = type != nullptr && type->is_string() && type->get_string() == "function";
  if (!is_function) {
    return absl::InvalidArgumentError(
        fmt::format("'{}.type' must be 'function': other tools are not supported", where));
  }
  const json::value* function = value.get_object().if_contains("function");
  if (function == nullptr) {
    return absl::InvalidArgumentError(fmt::format("'{}.function' is missing", where));
  }
  if (!function->is_object()) return WrongType(where + ".function", "an object", *function);
  return &function->get_object();
}

absl::Status CheckTool(const json::value& tool, const std::string& where,
                       std::set<std::string>* names) {
  BATON_ASSIGN_OR_RETURN(const json::object* function, FunctionIn(tool, where));
  const std::string inside = where + ".function";
  BATON_RETURN_IF_ERROR(CheckToolName(function->if_contains("name"), inside));
  const json::string& name = function->at("name").get_string();
  if (!names->emplace(name.data(), name.size()).second) {
    return absl::InvalidArgumentError(fmt::format("'{}.name' is that of an earlier tool", inside));
  }
  const json::value* parameters = function->if_contains("parameters");
  const bool sound = parameters == nullptr || parameters->is_null() || parameters->is_object();
  return sound ? absl::OkStatus() : WrongType(inside + ".parameters", "an object", *parameters);
}

// The one tool of that name, as an array.
absl::StatusOr<std::string> OnlyTool(const json::array& tools, const json::value& choice) {
  BATON_ASSIGN_OR_RETURN(const json::object* function, FunctionIn(choice, "tool_choice"));
  BATON_RETURN_IF_ERROR(CheckToolName(function->if_contains("name"), "tool_choice.function"));
  const json::value& name = function->at("name");
  for (const json::value& tool : tools) {
    if (tool.at("function").at("name") == name) return json::serialize(json::array{tool});
  }
  return absl::InvalidArgumentError(fmt::format(
      "'tool_choice' is the function {}, which is not among the tools", json::serialize(name)));
}

absl::Status ReadToolChoice(FieldReader& fields, const json::array& tools, ToolUse* use) {
  use->choice = ToolUse::Choice::kAuto;
  const json::value* choice = fields.Find("tool_choice");
  if (choice == nullptr) return absl::OkStatus();
  if (choice->is_object()) {
    use->choice = ToolUse::Choice::kRequired;
    use->parallel = false;
    BATON_ASSIGN_OR_RETURN(use->only, OnlyTool(tools, *choice));
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const std::string name, JsonText(*choice, "tool_choice"));
  if (name == "none") {
    use->choice = ToolUse::Choice::kNone;
  } else if (name == "required") {
    use->choice = ToolUse::Choice::kRequired;
  } else if (name != "auto") {
    return absl::InvalidArgumentError(
        fmt::format("'tool_choice' is '{}', but must be none, auto, required or a function",
                    name.substr(0, 64)));
  }
  return absl::OkStatus();
}

absl::Status CheckToolCall(const json::value& call, const std::string& where) {
  BATON_ASSIGN_OR_RETURN(const json::object* function, FunctionIn(call, where));
  BATON_RETURN_IF_ERROR(CheckToolName(function->if_contains("name"), where + ".function"));
  const json::value* arguments = function->if_contains("arguments");
  if (arguments == nullptr) {
    return absl::InvalidArgumentError(fmt::format("'{}.function.arguments' is missing", where));
  }
  if (!arguments->is_string()) {
    return WrongType(where + ".function.arguments", "a string of JSON", *arguments);
  }
  json::error_code error;
  const json::value parsed = json::parse(arguments->get_string(), error);
  if (!error && parsed.is_object()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}.function.arguments' is no JSON object", where));
}

}  // namespace

absl::StatusOr<ToolUse> ReadTools(FieldReader& fields) {
  ToolUse use;
  BATON_RETURN_IF_ERROR(fields.Read("parallel_tool_calls", &use.parallel));
  const json::value* tools = fields.Find("tools");
  if (tools == nullptr || (tools->is_array() && tools->get_array().empty())) {
    const json::value* choice = fields.Find("tool_choice");
    const bool harmless =
        choice == nullptr || (choice->is_string() && (*choice == "none" || *choice == "auto"));
    if (harmless) return use;
    return absl::InvalidArgumentError("'tool_choice' asks for a call, but there are no 'tools'");
  }
  if (!tools->is_array()) return WrongType("tools", "an array", *tools);
  const json::array& array = tools->get_array();
  if (array.size() > kMaxTools) {
    return absl::InvalidArgumentError(
        fmt::format("there are {} tools, but at most {} are taken", array.size(), kMaxTools));
  }
  std::set<std::string> names;
  for (size_t i = 0; i < array.size(); ++i) {
    BATON_RETURN_IF_ERROR(CheckTool(array[i], fmt::format("tools[{}]", i), &names));
  }
  use.tools = json::serialize(array);
  BATON_RETURN_IF_ERROR(ReadToolChoice(fields, array, &use));
  return use;
}

absl::Status ReadToolParts(const json::object& object, const std::string& where,
                           text::ChatMessage* message) {
  const auto read = [&](const char* name, std::string* out) -> absl::Status {
    const json::value* value = object.if_contains(name);
    if (value == nullptr || value->is_null()) return absl::OkStatus();
    BATON_ASSIGN_OR_RETURN(*out, JsonText(*value, fmt::format("{}.{}", where, name)));
    return absl::OkStatus();
  };
  BATON_RETURN_IF_ERROR(read("name", &message->name));
  BATON_RETURN_IF_ERROR(read("tool_call_id", &message->tool_call_id));
  const json::value* calls = object.if_contains("tool_calls");
  if (calls == nullptr || calls->is_null()) return absl::OkStatus();
  if (!calls->is_array()) return WrongType(where + ".tool_calls", "an array", *calls);
  if (calls->get_array().empty()) return absl::OkStatus();
  if (message->role != "assistant") {
    return absl::InvalidArgumentError(fmt::format(
        "'{}.tool_calls' is an assistant's, not of the role '{}'", where, message->role));
  }
  for (size_t i = 0; i < calls->get_array().size(); ++i) {
    BATON_RETURN_IF_ERROR(
        CheckToolCall(calls->get_array()[i], fmt::format("{}.tool_calls[{}]", where, i)));
  }
  message->tool_calls = json::serialize(*calls);
  return absl::OkStatus();
}

}  // namespace baton::router
