#pragma once

// Codes of their own that errors carry to HTTP's answer; other front ends do not see them.

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baton::router {

// A client that shortens its chat when it has outgrown the context looks for this code.
inline constexpr std::string_view kContextLengthExceeded = "context_length_exceeded";

absl::Status WithErrorCode(absl::Status status, std::string_view code);
// "" without one.
std::string ErrorCode(const absl::Status& status);

}  // namespace baton::router
