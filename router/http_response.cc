#include "router/http_response.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include "router/http_error.h"
#include "router/json_text.h"

namespace baton::router {
namespace {

std::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

void AppendHead(int status, const AnswerFraming& framing, std::string_view content_type,
                std::string* out) {
  out->append("HTTP/1.1 ");
  AppendJsonInt(status, out);
  out->append(" ").append(Reason(status));
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char date[64];
  const size_t bytes =
      std::strftime(date, sizeof(date), "\r\nDate: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
  out->append(date, bytes);
  out->append("Server: baton\r\nContent-Type: ").append(content_type);
  if (!framing.request_id.empty()) out->append("\r\nx-request-id: ").append(framing.request_id);
  if (!framing.traceparent.empty()) out->append("\r\ntraceparent: ").append(framing.traceparent);
  if (!framing.cors_origin.empty()) {
    out->append("\r\nAccess-Control-Allow-Origin: ").append(framing.cors_origin);
    out->append("\r\nAccess-Control-Expose-Headers: x-request-id, Retry-After");
    if (framing.cors_origin != "*") out->append("\r\nVary: Origin");
  }
  out->append(framing.keep_alive ? "\r\nConnection: keep-alive\r\n" : "\r\nConnection: close\r\n");
}

}  // namespace

HttpResponse PreflightResponse(std::string_view methods) {
  HttpResponse response;
  response.status = 204;
  response.headers = "Access-Control-Allow-Methods: ";
  response.headers.append(methods).append(
      ", OPTIONS\r\nAccess-Control-Allow-Headers: Authorization, Content-Type, traceparent\r\n"
      "Access-Control-Max-Age: 600\r\n");
  return response;
}

HttpResponse ErrorResponse(const absl::Status& status, std::string_view param) {
  const HttpError error = ToHttpError(status);
  HttpResponse response;
  response.status = error.status;
  response.body = ErrorBody(status, param);
  response.error = std::string(status.message());
  if (error.retry_after_s > 0) {
    response.headers = "Retry-After: " + std::to_string(error.retry_after_s) + "\r\n";
  }
  if (error.status == 401) response.headers += "WWW-Authenticate: Bearer\r\n";
  return response;
}

HttpResponse ErrorResponse(int status, std::string_view message, std::string_view code) {
  HttpResponse response;
  response.status = status;
  response.body =
      ErrorBody(message, status < 500 ? "invalid_request_error" : "server_error", "", code);
  response.error = message;
  if (status == 503) response.headers = "Retry-After: 1\r\n";
  return response;
}

void AppendResponse(const HttpResponse& response, const AnswerFraming& framing, std::string* out) {
  AppendHead(response.status, framing, response.content_type, out);
  out->append(response.headers);
  if (response.status != 204) {
    out->append("Content-Length: ");
    AppendJsonInt(static_cast<int64_t>(response.body.size()), out);
    out->append("\r\n");
  }
  out->append("\r\n");
  if (!framing.head_only) out->append(response.body);
}

void AppendStreamHead(const AnswerFraming& framing, std::string* out) {
  AppendHead(200, framing, "text/event-stream; charset=utf-8", out);
  // Proxies shall pass events on as they come.
  out->append("Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
  if (framing.chunked) out->append("Transfer-Encoding: chunked\r\n");
  out->append("\r\n");
}

std::string_view FrameStreamBytes(bool chunked, bool last, std::string* piece) {
  if (!chunked) return std::string_view(*piece).substr(kChunkHeadBytes);
  char size[kChunkHeadBytes];
  char* end = std::to_chars(size, size + sizeof(size), piece->size() - kChunkHeadBytes, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  const size_t begin = kChunkHeadBytes - static_cast<size_t>(end - size);
  std::copy(size, end, piece->begin() + static_cast<ptrdiff_t>(begin));
  piece->append(last ? "\r\n0\r\n\r\n" : "\r\n");
  return std::string_view(*piece).substr(begin);
}

}  // namespace baton::router
