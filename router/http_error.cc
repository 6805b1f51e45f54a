#include "router/http_error.h"

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

}  // namespace

HttpError ToHttpError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return {400, "invalid_request_error", ErrorCode(status), 0};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error", "model_not_found", 0};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", "rate_limit_exceeded", 1};
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return {503, "server_error", "unavailable", 1};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "server_error", "deadline_exceeded", 0};
    default:
      return {500, "server_error", "internal_error", 0};
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
