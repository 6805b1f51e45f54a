#pragma once

// A request's constraint as it goes over the wire: a JSON text, made by the router and compiled by
// whoever samples. It is one of
//   {"regex": "..."}            the whole text matches
//   {"choice": ["a", "b"]}      one of these texts
//   {"json_schema": {...}}      JSON that satisfies the schema
//   {"json_object": true}       any JSON object
//   {"sequence": [...]}         constraints one after the other
//   {"any_of": [...]}           one of several
//   {"repeat": {...}, "separator": "...", "least": 1, "most": 16}

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "grammar/automaton.h"

namespace baton::grammar {

inline constexpr size_t kMaxConstraintBytes = size_t{64} << 10;

// InvalidArgument says what is wrong or not supported, and where. Takes milliseconds at most: the
// size of the text, of the grammar and of the automaton are bounded.
absl::StatusOr<std::shared_ptr<const Automaton>> CompileConstraint(std::string_view description);

// {"regex": ...}.
std::string RegexConstraint(std::string_view pattern);
// {"json_schema": ...} of a schema's text, which must be JSON.
std::string JsonSchemaConstraint(std::string_view schema);

}  // namespace baton::grammar
