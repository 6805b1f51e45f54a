#pragma once

// Which top-level request fields exist, and what becomes of each.

#include <boost/json/fwd.hpp>

#include "absl/status/status.h"
#include "router/json_fields.h"
#include "router/openai_request.h"

namespace baton::router {

// InvalidArgument for a field that `endpoint` does not know ("unknown field 'max_token'; did you
// mean 'max_tokens'?") and for one that asks for what Baton cannot do. OpenAI's fields that
// change no answer here pass. On an error `fields` has the field's name.
absl::Status CheckFieldNames(Endpoint endpoint, const boost::json::object& object,
                             FieldReader& fields);

}  // namespace baton::router
