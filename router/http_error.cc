#include "router/http_error.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "router/error_code.h"
#include "router/json_text.h"

namespace baton::router {
namespace {

void AppendStringOrNull(std::string_view text, std::string* out) {
  if (text.empty()) {
    out->append("null");
  } else {
    AppendJsonString(text, out);
  }
}

// Whole seconds, and at least one: nobody shall come again at once.
int RetrySeconds(const absl::Status& status) {
  const std::optional<Duration> retry = RetryAfter(status);
  if (!retry) return 1;
  const int64_t seconds = std::chrono::ceil<std::chrono::seconds>(*retry).count();
  return static_cast<int>(std::clamp<int64_t>(seconds, 1, 86'400));
}

}  // namespace

HttpError ToHttpError(const absl::Status& status) {
  const std::string code = ErrorCode(status);
  const auto code_or = [&code](const char* other) { return code.empty() ? other : code; };
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return {400, "invalid_request_error", code, 0};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error", "model_not_found", 0};
    case absl::StatusCode::kUnauthenticated:
      return {401, "authentication_error", code_or("invalid_api_key"), 0};
    case absl::StatusCode::kPermissionDenied:
      return {403, "permission_error", code_or("permission_denied"), 0};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", code_or("rate_limit_exceeded"), RetrySeconds(status)};
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return {503, "server_error", "unavailable", RetrySeconds(status)};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "server_error", "deadline_exceeded", 0};
    default:
      return {500, "server_error", "internal_error", 0};
  }
}

absl::StatusCode CodeOfHttp(int http_status) {
  switch (http_status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 408:
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 503:
      return absl::StatusCode::kUnavailable;
    default:
      return http_status < 500 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kInternal;
  }
}

std::string ErrorBody(std::string_view message, std::string_view type, std::string_view param,
                      std::string_view code) {
  std::string body = R"({"error":{"message":)";
  AppendJsonString(message, &body);
  body += R"(,"type":)";
  AppendJsonString(type, &body);
  body += R"(,"param":)";
  AppendStringOrNull(param, &body);
  body += R"(,"code":)";
  AppendStringOrNull(code, &body);
  body += "}}";
  return body;
}

std::string ErrorBody(const absl::Status& status, std::string_view param) {
  const HttpError error = ToHttpError(status);
  const absl::string_view message = status.message();
  return ErrorBody({message.data(), message.size()}, error.type, param, error.code);
}

}  // namespace baton::router
