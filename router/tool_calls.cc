#include "router/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <utility>

#include "common/status_macros.h"
#include "grammar/constraint.h"
#include "router/view.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kBlank = " \t\r\n";
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

// {"name": ..., "arguments" or "parameters": {...}}.
std::optional<ToolCall> CallOf(const json::value& value) {
  if (!value.is_object()) return std::nullopt;
  const json::object& object = value.get_object();
  ToolCall call;
  call.name = NameOf(object);
  if (call.name.empty()) return std::nullopt;
  const json::value* arguments = object.if_contains("arguments");
  if (arguments == nullptr) arguments = object.if_contains("parameters");
  if (arguments == nullptr) {
    call.arguments = "{}";
  } else if (arguments->is_object()) {
    call.arguments = json::serialize(*arguments);
  } else {
    return std::nullopt;
  }
  return call;
}

std::optional<ToolCall> ParseCall(std::string_view text) {
  json::error_code error;
  const json::value value = json::parse({text.data(), text.size()}, error);
  if (error) return std::nullopt;
  return CallOf(value);
}

// How much of the end of `text` may be the beginning of `mark`.
size_t PartialMark(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) return length;
  }
  return 0;
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

absl::StatusOr<json::value> ArgumentsConstraint(const json::object& function) {
  json::value constraint = json::object{{"json_schema", SchemaOf(function)}};
  const auto compiled = grammar::CompileConstraint(json::serialize(constraint));
  if (compiled.ok()) return constraint;
  const json::value* strict = function.if_contains("strict");
  if (strict != nullptr && strict->is_bool() && strict->get_bool()) {
    return absl::InvalidArgumentError(
        fmt::format("the parameters of the strict tool '{}' are not possible: {}", NameOf(function),
                    std::string(compiled.status().message())));
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
  for (const json::value& tool : tools.get_array()) {
    const json::object* function = FunctionOf(tool);
    if (function == nullptr) return absl::InvalidArgumentError("a tool has no function");
    BATON_ASSIGN_OR_RETURN(json::value arguments, ArgumentsConstraint(*function));
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

ToolCallParser::ToolCallParser(ToolFormat format, std::string_view tools) : format_(format) {
  const absl::StatusOr<json::value> array = ParseArray(tools);
  if (!array.ok()) return;
  for (const json::value& tool : array->get_array()) {
    if (const json::object* function = FunctionOf(tool)) names_.emplace_back(NameOf(*function));
  }
}

// White space around calls belongs to their form, not to the answer.
void ToolCallParser::Show(std::string_view text, Piece* piece) {
  if (text.empty()) return;
  white_space_ += text;
  const size_t last = white_space_.find_last_not_of(kBlank);
  if (last == std::string::npos) return;
  const size_t first = called_ && !shown_ ? white_space_.find_first_not_of(kBlank) : 0;
  piece->text.append(white_space_, first, last + 1 - first);
  white_space_.erase(0, last + 1);
  shown_ = true;
}

ToolCallParser::Piece ToolCallParser::Push(std::string_view text) {
  Piece piece;
  if (plain_) {
    piece.text = text;
    return piece;
  }
  held_ += text;
  if (format_ == ToolFormat::kHermes) {
    TakeHermes(&piece);
  } else {
    TakeLlama(&piece);
  }
  return piece;
}

void ToolCallParser::TakeHermes(Piece* piece) {
  while (true) {
    if (!inside_) {
      const size_t open = held_.find(kOpen);
      const size_t shown =
          open == std::string::npos ? held_.size() - PartialMark(held_, kOpen) : open;
      Show(std::string_view(held_).substr(0, shown), piece);
      held_.erase(0, open == std::string::npos ? shown : shown + kOpen.size());
      if (open == std::string::npos) return;
      inside_ = true;
    }
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) return;
    const std::string_view inside = std::string_view(held_).substr(0, close);
    if (std::optional<ToolCall> call = ParseCall(inside)) {
      piece->calls.push_back(*std::move(call));
      called_ = true;
      white_space_.clear();
    } else {
      Show(fmt::format("{}{}{}", kOpen, inside, kClose), piece);
    }
    held_.erase(0, close + kClose.size());
    inside_ = false;
  }
}

// Calls are the whole answer, or there are none: only its end tells.
void ToolCallParser::TakeLlama(Piece* piece) {
  const size_t begin = held_.find_first_not_of(kBlank);
  if (begin == std::string::npos) return;
  const std::string_view text = std::string_view(held_).substr(begin);
  if (text.starts_with('{') || text.starts_with(kPythonTag) || kPythonTag.starts_with(text)) return;
  plain_ = true;
  piece->text = std::exchange(held_, "");
}

ToolCallParser::Piece ToolCallParser::Finish() {
  Piece piece;
  std::string held = std::exchange(held_, "");
  if (format_ == ToolFormat::kHermes) {
    std::optional<ToolCall> call = inside_ ? ParseCall(held) : std::nullopt;
    if (call) {
      piece.calls.push_back(*std::move(call));
      called_ = true;
    } else {
      Show(fmt::format("{}{}", inside_ ? kOpen : "", held), &piece);
    }
    if (!called_) piece.text += white_space_;
    return piece;
  }
  if (plain_) return piece;
  std::string_view rest = held;
  rest.remove_prefix(rest.find_first_not_of(kBlank) == std::string_view::npos
                         ? rest.size()
                         : rest.find_first_not_of(kBlank));
  if (rest.starts_with(kPythonTag)) rest.remove_prefix(kPythonTag.size());
  while (!rest.empty()) {
    json::stream_parser parser;
    json::error_code error;
    const size_t used = parser.write_some(rest.data(), rest.size(), error);
    if (!error && !parser.done()) parser.finish(error);
    std::optional<ToolCall> call = error ? std::nullopt : CallOf(parser.release());
    const bool known = call && std::ranges::find(names_, call->name) != names_.end();
    if (!known) {
      piece.calls.clear();
      piece.text = std::move(held);
      return piece;
    }
    piece.calls.push_back(*std::move(call));
    rest.remove_prefix(used);
    const size_t next = rest.find_first_not_of(" \t\r\n;");
    rest.remove_prefix(next == std::string_view::npos ? rest.size() : next);
  }
  return piece;
}

}  // namespace baton::router
