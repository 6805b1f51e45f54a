#pragma once

// JSON that a user wrote, as values of the template language.

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/value.h"

namespace baton::text::jinja {

// All strings, names too, are marked as a user's. InvalidArgument for what is no JSON.
absl::StatusOr<Value> ReadJson(std::string_view text);

}  // namespace baton::text::jinja
