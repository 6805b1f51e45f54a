#pragma once

// The parts of a JSON schema that have parts themselves: objects and arrays. Internal to
// json_schema.cc.

#include <functional>
#include <string>

#include <boost/json/fwd.hpp>

#include "absl/status/statusor.h"
#include "grammar/json_values.h"

namespace baton::grammar {

// Compiles the schema at a place.
using SubschemaCompiler = std::function<absl::StatusOr<ExpressionId>(const boost::json::value&,
                                                                     const std::string& where)>;

absl::StatusOr<ExpressionId> CompileObject(const boost::json::object& schema,
                                           const std::string& where, const JsonValues& values,
                                           const SubschemaCompiler& compile);
absl::StatusOr<ExpressionId> CompileArray(const boost::json::object& schema,
                                          const std::string& where, const JsonValues& values,
                                          const SubschemaCompiler& compile);

// A keyword that counts something; `fallback` where it is not there. InvalidArgument unless it is
// an integer in [0, 4096].
absl::StatusOr<int32_t> CountKeyword(const boost::json::object& schema, const char* keyword,
                                     const std::string& where, int32_t fallback);

}  // namespace baton::grammar
