#pragma once

// The two ways to give a prompt: chat messages, and the forms of a completion's 'prompt'.

#include <boost/json/fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "router/json_fields.h"
#include "router/request.h"

namespace baton::router {

using Prompt = decltype(GenerateInput::prompt);

// Contents are strings or lists of text parts, which are joined by newlines. The role "developer"
// is OpenAI's newer name for "system". InvalidArgument for anything else, naming the place.
absl::StatusOr<std::vector<text::ChatMessage>> ReadMessages(const boost::json::value& value,
                                                            const RequestLimits& limits);

// A string, a list of strings, a list of token ids, or a list of lists of token ids.
absl::StatusOr<std::vector<Prompt>> ReadPrompts(const boost::json::value& value,
                                                const RequestLimits& limits);

// vLLM's fields that say where the answer to a chat begins.
absl::Status ReadAnswerPlace(FieldReader& fields, GenerateInput* input);

}  // namespace baton::router
