#pragma once

// The fields of chat requests about tools.

#include <string>

#include <boost/json/fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/json_fields.h"
#include "router/tool_calls.h"
#include "text/chat_template.h"

namespace baton::router {

// tools, tool_choice and parallel_tool_calls. At most 128 tools.
absl::StatusOr<ToolUse> ReadTools(FieldReader& fields);

// A message's tool_calls, tool_call_id and name into `message`. `where` names the message.
absl::Status ReadToolParts(const boost::json::object& object, const std::string& where,
                           text::ChatMessage* message);

}  // namespace baton::router
