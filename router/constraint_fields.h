#pragma once

// The fields of HTTP requests that say what an answer must be: OpenAI's response_format, and vLLM's
// guided_json, guided_regex, guided_choice and structured_outputs.

#include <string>
#include <string_view>

#include <boost/json/fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/json_fields.h"

namespace baton::router {

// The constraint as the workers take it; "" when no field asks for one. InvalidArgument for more
// than one, and for what cannot be compiled, with the place in it.
absl::StatusOr<std::string> ReadConstraint(FieldReader& fields);

// A JSON schema (an object, or its text) to a constraint that is not compiled yet.
absl::StatusOr<std::string> SchemaConstraint(const boost::json::value& schema,
                                             std::string_view where);

}  // namespace baton::router
