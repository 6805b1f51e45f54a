#pragma once

// Errors as OpenAI's API answers them.

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baton::router {

struct HttpError {
  int status = 500;       // HTTP status code
  std::string_view type;  // "invalid_request_error", "rate_limit_error", "server_error", ...
  std::string code;       // "": null
  int retry_after_s = 0;  // 0: no Retry-After header
};

// 400 InvalidArgument, OutOfRange · 401 Unauthenticated · 403 PermissionDenied · 404 NotFound (the
// model) · 429 ResourceExhausted · 503 Unavailable, Cancelled · 504 DeadlineExceeded · 500 the
// rest. Code and Retry-After are the status' own (error_code.h), if it has them.
HttpError ToHttpError(const absl::Status& status);

// The other way round, for answers that have no status but HTTP's.
absl::StatusCode CodeOfHttp(int http_status);

// {"error":{"message":...,"type":...,"param":...,"code":...}}; "" for `param` and `code` is null.
std::string ErrorBody(std::string_view message, std::string_view type, std::string_view param,
                      std::string_view code);
std::string ErrorBody(const absl::Status& status, std::string_view param);

}  // namespace baton::router
