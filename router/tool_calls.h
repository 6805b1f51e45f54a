#pragma once

// Tools: how a model's family writes calls, and what an answer must be so that it calls one. Pure.
// tool_call_parser.h has the way back.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/chat_template.h"

namespace baton::router {

enum class ToolFormat {
  kHermes,  // <tool_call>{"name": ..., "arguments": {...}}</tool_call>, of Hermes, Qwen, SmolLM
  kLlama,   // {"name": ..., "parameters": {...}} as the whole answer, of Llama 3
};

// The form that a chat template asks for; kHermes where it knows no tools.
ToolFormat ToolFormatOf(std::string_view template_source);
bool TemplateKnowsTools(std::string_view template_source);

// For a template that knows no tools: the same chat with the tools, earlier calls and their answers
// written into the messages, in Hermes' form. `tools` is a JSON array.
absl::StatusOr<std::vector<text::ChatMessage>> WithToolsInMessages(
    const std::vector<text::ChatMessage>& messages, std::string_view tools);

// What a client says of tools. Plain data.
struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired };
  Choice choice = Choice::kNone;
  std::string tools;     // JSON array, as the client sent it
  std::string only;      // the same with the one tool that must be called; "": any
  bool parallel = true;  // more than one call an answer
};

// The constraint (grammar/constraint.h) of an answer that is a call, or several, of these tools.
// Parameters whose schema cannot be compiled are any object, unless the tool is `strict`: then it
// is InvalidArgument with the tool's name.
absl::StatusOr<std::string> ToolConstraint(ToolFormat format, const ToolUse& use);

}  // namespace baton::router
