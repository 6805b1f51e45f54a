#pragma once

// What errors carry to the front ends beside their text: a code of their own, the field that is
// wrong, and when to come again.

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/clock.h"

namespace baton::router {

// A client that shortens its chat when it has outgrown the context looks for this code.
inline constexpr std::string_view kContextLengthExceeded = "context_length_exceeded";

// 429s that only a key's owner meets: the tokens of its day are used up.
inline constexpr std::string_view kInsufficientQuota = "insufficient_quota";
// 401 and 403.
inline constexpr std::string_view kInvalidApiKey = "invalid_api_key";
inline constexpr std::string_view kRevokedApiKey = "revoked_api_key";

absl::Status WithErrorCode(absl::Status status, std::string_view code);
// "" without one.
std::string ErrorCode(const absl::Status& status);

// When the same request may fare better; of ResourceExhausted and Unavailable.
absl::Status WithRetryAfter(absl::Status status, Duration retry_after);
std::optional<Duration> RetryAfter(const absl::Status& status);

}  // namespace baton::router
