#pragma once

// HTTP/1.1 answers as bytes.

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baton::router {

struct HttpResponse {
  int status = 200;
  std::string_view content_type = "application/json";
  std::string body;
  std::string headers;  // whole lines ("Allow: POST\r\n")
  std::string error;    // of an ErrorResponse, its message
};

// What a browser asks before it lets a page of another origin send a request: that it may.
HttpResponse PreflightResponse(std::string_view methods);

// In OpenAI's shape, with Retry-After where it applies.
HttpResponse ErrorResponse(const absl::Status& status, std::string_view param);
// For what is wrong with the HTTP request itself; `status` is 4xx or 5xx.
HttpResponse ErrorResponse(int status, std::string_view message, std::string_view code);

// How the connection goes on after an answer, and what the request allows.
struct AnswerFraming {
  std::string_view request_id;
  std::string_view traceparent;
  bool keep_alive = true;
  bool head_only = false;  // HEAD: the headers alone
  bool chunked = true;  // streams only; false for HTTP/1.0, whose streams end with the connection
  std::string_view cors_origin = "";  // whose pages may read the answer; "": nobody's
};

void AppendResponse(const HttpResponse& response, const AnswerFraming& framing, std::string* out);

// A stream's headers; then what FrameStreamBytes gives of each piece (not empty).
void AppendStreamHead(const AnswerFraming& framing, std::string* out);

// Of `piece`, whose first kChunkHeadBytes are only room, what goes to the client; with the stream's
// end behind the last one. Valid until `piece` changes.
inline constexpr size_t kChunkHeadBytes = 18;  // sixteen digits and a line's end
std::string_view FrameStreamBytes(bool chunked, bool last, std::string* piece);

}  // namespace baton::router
