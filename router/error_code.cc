#include "router/error_code.h"

#include <charconv>

#include "absl/strings/cord.h"

namespace baton::router {
namespace {

constexpr char kCodePayload[] = "baton/error_code";
constexpr char kRetryPayload[] = "baton/retry_after_ms";

}  // namespace

absl::Status WithErrorCode(absl::Status status, std::string_view code) {
  status.SetPayload(kCodePayload, absl::Cord(absl::string_view(code.data(), code.size())));
  return status;
}

std::string ErrorCode(const absl::Status& status) {
  const absl::optional<absl::Cord> code = status.GetPayload(kCodePayload);
  return code ? std::string(*code) : std::string();
}

absl::Status WithRetryAfter(absl::Status status, Duration retry_after) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(retry_after).count();
  status.SetPayload(kRetryPayload, absl::Cord(std::to_string(ms)));
  return status;
}

std::optional<Duration> RetryAfter(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryPayload);
  if (!payload) return std::nullopt;
  const std::string text(*payload);
  int64_t ms = 0;
  std::from_chars(text.data(), text.data() + text.size(), ms);
  return std::chrono::milliseconds(ms);
}

}  // namespace baton::router
