#include "router/tool_calls.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>

#include "common/status_macros.h"
#include "common/view.h"
#include "grammar/constraint.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr int kMaxCalls = 16;  // of one answer, where a call is required

absl::StatusOr<json::value> ParseArray(std::string_view text) {
  json::error_code error;
  json::value value = json::parse({text.data(), text.size()}, error);
  if (error || !value.is_array()) return absl::InvalidArgumentError("tools are no JSON array");
  return value;
}

const json::object* FunctionOf(const json::value& tool) {
  const json::value* function =
      tool.is_object() ? tool.get_object().if_contains("function") : nullptr;
  return function != nullptr && function->is_object() ? &function->get_object() : nullptr;
}

std::string_view NameOf(const json::object& function) {
  const json::value* name = function.if_contains("name");
  return name != nullptr && name->is_string() ? View(name->get_string()) : "";
}

// Texts as a part of a constraint.
json::value Exactly(std::string_view text) {
  return json::object{{"choice", json::array{json::string(text.data(), text.size())}}};
}

json::value SchemaOf(const json::object& function) {
  const json::value* parameters = function.if_contains("parameters");
  if (parameters == nullptr || parameters->is_null()) {
    return json::object{{"type", "object"}, {"additionalProperties", false}};
  }
  json::value schema = *parameters;
  // Arguments are always an object.
  if (schema.is_object() && !schema.get_object().contains("type") &&
      !schema.get_object().contains("$ref")) {
    schema.get_object()["type"] = "object";
  }
  return schema;
}

// How much compiling the schemas of one request's tools may be.
struct CompileBudget {
  // Of all together; what stands around them needs some, too.
  size_t bytes = grammar::kMaxConstraintBytes / 4 * 3;
  size_t states = grammar::Automaton::kMaxStates / 4 * 3;
  int failures = 32;  // each may have cost as much
};

absl::Status TryCompile(const json::value& constraint, CompileBudget* budget) {
  if (budget->failures == 0) {
    return absl::InvalidArgumentError("too many tools have schemas that are not possible");
  }
  const std::string text = json::serialize(constraint);
  if (text.size() > budget->bytes) {
    return absl::InvalidArgumentError(
        fmt::format("with the tools before it, it has more than {} bytes", CompileBudget{}.bytes));
  }
  budget->bytes -= text.size();
  const auto compiled = grammar::CompileConstraint(text);
  if (compiled.ok() && (*compiled)->size() <= budget->states) {
    budget->states -= (*compiled)->size();
    return absl::OkStatus();
  }
  --budget->failures;
  if (!compiled.ok()) return compiled.status();
  return absl::InvalidArgumentError(fmt::format(
      "with the tools before it, it needs more than {} states", CompileBudget{}.states));
}

absl::StatusOr<json::value> ArgumentsConstraint(const json::object& function,
                                                CompileBudget* budget) {
  json::value constraint = json::object{{"json_schema", SchemaOf(function)}};
  const absl::Status compiled = TryCompile(constraint, budget);
  if (compiled.ok()) return constraint;
  const json::value* strict = function.if_contains("strict");
  if (strict != nullptr && strict->is_bool() && strict->get_bool()) {
    return absl::InvalidArgumentError(
        fmt::format("the parameters of the strict tool '{}' are not possible: {}", NameOf(function),
                    std::string(compiled.message())));
  }
  return json::value(json::object{{"json_object", true}});
}

void AppendCalls(std::string_view tool_calls, std::string* content) {
  json::error_code error;
  const json::value calls = json::parse({tool_calls.data(), tool_calls.size()}, error);
  if (error || !calls.is_array()) return;
  for (const json::value& call : calls.get_array()) {
    const json::object* function = FunctionOf(call);
    if (function == nullptr) continue;
    const json::value* arguments = function->if_contains("arguments");
    std::string text = "{}";
    if (arguments != nullptr) {
      text = arguments->is_string() ? std::string(View(arguments->get_string()))
                                    : json::serialize(*arguments);
    }
    if (!content->empty()) *content += '\n';
    *content += fmt::format("{}\n{{\"name\": {}, \"arguments\": {}}}\n{}", kOpen,
                            json::serialize(json::string(NameOf(*function))), text, kClose);
  }
}

}  // namespace

ToolFormat ToolFormatOf(std::string_view template_source) {
  const bool hermes = template_source.find(kOpen) != std::string_view::npos;
  const bool llama = template_source.find("python_tag") != std::string_view::npos ||
                     template_source.find("ipython") != std::string_view::npos;
  return llama && !hermes ? ToolFormat::kLlama : ToolFormat::kHermes;
}

bool TemplateKnowsTools(std::string_view template_source) {
  return template_source.find("tools") != std::string_view::npos;
}

absl::StatusOr<std::vector<text::ChatMessage>> WithToolsInMessages(
    const std::vector<text::ChatMessage>& messages, std::string_view tools) {
  std::vector<text::ChatMessage> written;
  if (!tools.empty()) {
    BATON_ASSIGN_OR_RETURN(const json::value array, ParseArray(tools));
    std::string system =
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
    for (const json::value& tool : array.get_array()) system += "\n" + json::serialize(tool);
    system +=
        "\n</tools>\n\nFor each function call, return a json object with function name and "
        "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
        "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
    const bool has_system = !messages.empty() && messages.front().role == "system";
    if (has_system) system = messages.front().content + "\n\n" + system;
    written.push_back({"system", std::move(system)});
  }
  for (const text::ChatMessage& message : messages) {
    const bool taken = &message == &messages.front() && message.role == "system" && !tools.empty();
    if (taken) continue;
    text::ChatMessage plain{message.role, message.content};
    if (!message.tool_calls.empty()) AppendCalls(message.tool_calls, &plain.content);
    if (message.role == "tool") {
      plain.role = "user";
      plain.content = "<tool_response>\n" + message.content + "\n</tool_response>";
      const bool follows = &message != &messages.front() && (&message - 1)->role == "tool";
      if (follows && !written.empty()) {
        written.back().content += "\n" + plain.content;
        continue;
      }
    }
    written.push_back(std::move(plain));
  }
  return written;
}

absl::StatusOr<std::string> ToolConstraint(ToolFormat format, const ToolUse& use) {
  BATON_ASSIGN_OR_RETURN(const json::value tools,
                         ParseArray(use.only.empty() ? use.tools : use.only));
  json::array calls;
  CompileBudget budget;
  for (const json::value& tool : tools.get_array()) {
    const json::object* function = FunctionOf(tool);
    if (function == nullptr) return absl::InvalidArgumentError("a tool has no function");
    BATON_ASSIGN_OR_RETURN(json::value arguments, ArgumentsConstraint(*function, &budget));
    const std::string name = json::serialize(json::string(NameOf(*function)));
    const bool hermes = format == ToolFormat::kHermes;
    json::array parts;
    parts.push_back(Exactly(fmt::format("{}{{\"name\": {}, \"{}\": ", hermes ? "<tool_call>\n" : "",
                                        name, hermes ? "arguments" : "parameters")));
    parts.push_back(std::move(arguments));
    parts.push_back(Exactly(hermes ? "}\n</tool_call>" : "}"));
    calls.push_back(json::object{{"sequence", std::move(parts)}});
  }
  const bool once = !use.parallel || format == ToolFormat::kLlama;
  return json::serialize(json::object{{"repeat", json::object{{"any_of", std::move(calls)}}},
                                      {"separator", "\n"},
                                      {"least", 1},
                                      {"most", once ? 1 : kMaxCalls}});
}

}  // namespace baton::router
