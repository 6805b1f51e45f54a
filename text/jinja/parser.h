#pragma once

// Template text to syntax tree. Bounded: source size, nesting of tags, height of expressions.

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/ast.h"

namespace baton::text::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;

// InvalidArgument with line and column for what does not parse or is not supported (include,
// import, extends, recursive loops).
absl::StatusOr<Body> Parse(std::string_view source);

}  // namespace baton::text::jinja
