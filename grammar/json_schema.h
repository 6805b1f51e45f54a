#pragma once

// JSON schemas to grammars.

#include <boost/json/fwd.hpp>

#include "absl/status/statusor.h"
#include "grammar/json_values.h"

namespace baton::grammar {

// What the schema allows, or a part of that: members come in the order of `properties`, and no
// others unless additionalProperties says so (an object without `properties` may have any);
// `oneOf` is as `anyOf`; strings with a pattern and numbers with bounds are written in one way
// only. docs/api.md has the list of keywords. InvalidArgument names the place ("#/properties/a")
// and what is not supported there.
absl::StatusOr<ExpressionId> CompileJsonSchema(const boost::json::value& schema,
                                               const JsonValues& values);

}  // namespace baton::grammar
