// HttpSession's reading half: requests from the socket, and what is wrong with them.

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/read.hpp>
#include <cctype>
#include <utility>

#include "common/view.h"
#include "router/http_session.h"
#include "router/key_gate.h"
#include "router/telemetry.h"

namespace baton::router {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kKeptBufferBytes = 64 << 10;  // capacity that an idle connection may hold
constexpr size_t kLingerBytes = 64 << 20;
constexpr size_t kDroppedBodyBytes = 64 << 10;
constexpr size_t kMaxPathBytes = 128;

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

// "application/json", whatever parameters follow.
bool IsJson(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find(';'));
  while (content_type.ends_with(' ') || content_type.ends_with('\t')) content_type.remove_suffix(1);
  return EqualsIgnoringCase(content_type, "application/json");
}

}  // namespace

void HttpSession::NextRequest() {
  state_ = State::kIdle;
  parser_.reset();
  call_.reset();
  if (outgoing_.capacity() > kKeptBufferBytes) outgoing_ = {};
  if (writing_.capacity() > kKeptBufferBytes) writing_ = {};
  SetDeadline(context_->options().idle_timeout);
  if (reading_) {
    // The read that watched for a disconnect now waits for the next request. When that is here
    // already, the read has to give the buffer back first.
    error_code ignored;
    if (buffer_.size() > 0) stream_.socket().cancel(ignored);
    return;
  }
  if (buffer_.size() > 0) {
    ReadHeader();
    return;
  }
  if (buffer_.capacity() > kKeptBufferBytes) buffer_.shrink_to_fit();
  ReadMore();
}

void HttpSession::ReadMore() {
  reading_ = true;
  stream_.async_read_some(
      buffer_.prepare(kReadBytes),
      [self = shared_from_this()](error_code error, size_t bytes) { self->OnBytes(error, bytes); });
}

void HttpSession::OnBytes(error_code error, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  const bool given_back = error == boost::asio::error::operation_aborted && state_ == State::kIdle;
  if (error && !given_back) {
    if (call_ != nullptr) context_->CountDisconnect();
    Close();
    return;
  }
  buffer_.commit(bytes);
  switch (state_) {
    case State::kIdle:
      ReadHeader();
      return;
    case State::kAnswering:
      if (buffer_.size() < kReadAheadBytes) ReadMore();
      return;
    case State::kLingering:
      lingered_bytes_ += bytes;
      buffer_.consume(buffer_.size());
      if (lingered_bytes_ > kLingerBytes) {
        Close();
      } else {
        ReadMore();
      }
      return;
    default:
      return;
  }
}

void HttpSession::ReadHeader() {
  state_ = State::kReading;
  SetDeadline(context_->options().read_timeout);
  keep_alive_ = true;
  head_only_ = false;
  http_1_0_ = false;
  request_id_ = context_->NextRequestId();
  endpoint_.clear();
  trace_ = {};
  traceparent_.clear();
  visit_.reset();
  refusal_.reset();
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(context_->options().max_header_bytes));
  parser_->body_limit(context_->options().limits.max_body_bytes);
  parsing_ = true;
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](error_code error, size_t) { self->OnHeader(error); });
}

void HttpSession::OnHeader(error_code error) {
  parsing_ = false;
  if (state_ != State::kReading) return;  // closed or timed out meanwhile
  if (error) {
    OnReadError(error);
    return;
  }
  const auto& request = parser_->get();
  http_1_0_ = request.version() < 11;
  keep_alive_ = parser_->keep_alive();
  head_only_ = request.method() == http::verb::head;
  route_ = FindRoute(View(request.target()));
  TakeTrace();
  if (RefuseHeader()) return;
  if (!route_.is_completion() && !parser_->is_done()) keep_alive_ = false;  // nobody reads its body
  if (!route_.is_completion() || parser_->is_done()) {
    Handle();
    return;
  }
  const std::string_view expect = View(request[http::field::expect]);
  if (EqualsIgnoringCase(expect, "100-continue") && !http_1_0_) {
    outgoing_ += "HTTP/1.1 100 Continue\r\n\r\n";
    Flush();
  }
  ReadBody();
}

void HttpSession::TakeTrace() {
  const auto& request = parser_->get();
  endpoint_ = View(request.target()).substr(0, request.target().find('?')).substr(0, kMaxPathBytes);
  const std::string_view id = SoundRequestId(View(request["x-request-id"]));
  if (!id.empty()) request_id_ = id;
  const Telemetry* const telemetry = context_->options().telemetry;
  if (telemetry == nullptr || !route_.is_completion()) return;
  trace_ = telemetry->TraceOf(View(request["traceparent"]), View(request["tracestate"]));
  if (trace_.on()) traceparent_ = Traceparent(trace_);
}

bool HttpSession::RefuseHeader() {
  const auto& request = parser_->get();
  const auto refuse = [this](const HttpResponse& response) {
    if (!parser_->is_done()) keep_alive_ = false;  // the rest of this request is not read
    Respond(response);
    return true;
  };
  if (route_.resource == Resource::kUnknown) return refuse(UnknownPath(View(request.target())));
  // A browser asks without a key.
  if (request.method() == http::verb::options && !context_->options().cors_origin.empty()) {
    return refuse(PreflightResponse(route_.methods()));
  }
  const bool allowed = route_.is_completion() ? request.method() == http::verb::post
                                              : request.method() == http::verb::get || head_only_;
  if (!allowed) {
    HttpResponse response =
        ErrorResponse(405,
                      fmt::format("{} is not possible here; use {}",
                                  View(request.method_string()).substr(0, 32), route_.methods()),
                      "method_not_allowed");
    response.headers = fmt::format("Allow: {}\r\n", route_.methods());
    return refuse(response);
  }
  const std::string_view expect = View(request[http::field::expect]);
  if (!expect.empty() && !EqualsIgnoringCase(expect, "100-continue")) {
    return refuse(ErrorResponse(417, "only 'Expect: 100-continue' is understood", ""));
  }
  return (route_.is_completion() && CheckPost()) || CheckCaller();
}

// A refused request's small body is read and dropped, so that the connection lives on: clients that
// come again would otherwise open a new one each time.
bool HttpSession::CheckCaller() {
  const auto& request = parser_->get();
  const std::string_view authorization = View(request[http::field::authorization]);
  KeyGate* const gate = context_->options().gate;
  absl::Status status;
  if (route_.is_completion()) {
    absl::StatusOr<std::shared_ptr<Visit>> visit =
        ComeIn(gate, *context_->dispatcher(), authorization);
    status = visit.status();
    if (status.ok()) visit_ = *std::move(visit);
  } else if (gate != nullptr && NeedsKey(route_, context_->options().open_metrics)) {
    status = gate->Check(authorization);
  }
  if (status.ok()) return false;
  HttpResponse response = ErrorResponse(status, "");
  const bool expects = !View(request[http::field::expect]).empty();
  if (parser_->is_done() ||
      (!expects && body_reserved_ <= kDroppedBodyBytes && route_.is_completion())) {
    refusal_ = std::move(response);
    return false;
  }
  keep_alive_ = false;
  FreeBody();
  Respond(response);
  return true;
}

bool HttpSession::CheckPost() {
  const auto& request = parser_->get();
  const auto refuse = [this](int status, std::string_view message, std::string_view code) {
    if (!parser_->is_done()) keep_alive_ = false;
    Respond(ErrorResponse(status, message, code));
    return true;
  };
  const bool chunked = parser_->chunked();
  if (!chunked && !parser_->content_length()) {
    return refuse(411, "a POST needs a Content-Length, or a chunked body", "length_required");
  }
  if (!IsJson(View(request[http::field::content_type]))) {
    return refuse(415, "the body must be JSON, with 'Content-Type: application/json'",
                  "unsupported_media_type");
  }
  if (!View(request[http::field::content_encoding]).empty()) {
    return refuse(415, "compressed bodies are not supported", "unsupported_media_type");
  }
  const size_t bytes = chunked ? context_->options().limits.max_body_bytes
                               : static_cast<size_t>(*parser_->content_length());
  if (!context_->ReserveBody(bytes)) {
    return refuse(503, "too many request bodies are being read; try again", "unavailable");
  }
  body_reserved_ = bytes;
  return false;
}

void HttpSession::ReadBody() {
  parsing_ = true;
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](error_code error, size_t) { self->OnBody(error); });
}

void HttpSession::OnBody(error_code error) {
  parsing_ = false;
  if (state_ != State::kReading) return;
  if (error) {
    OnReadError(error);
    return;
  }
  Handle();
}

// Whatever follows on this connection cannot be understood any more, so it ends.
void HttpSession::OnReadError(error_code error) {
  keep_alive_ = false;
  FreeBody();
  if (error == http::error::body_limit) {
    Respond(ErrorResponse(
        413,
        fmt::format("the body has more than {} bytes", context_->options().limits.max_body_bytes),
        "body_too_large"));
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    Respond(ErrorResponse(
        431,
        fmt::format("the headers have more than {} bytes", context_->options().max_header_bytes),
        "headers_too_large"));
  } else if (error != http::error::end_of_stream && error != http::error::partial_message &&
             error.category() == http::make_error_code(http::error::bad_method).category()) {
    Respond(ErrorResponse(400, fmt::format("not a sound HTTP request: {}", error.message()),
                          "bad_http"));
  } else {
    Close();
  }
}

void HttpSession::FreeBody() {
  context_->FreeBody(body_reserved_);
  body_reserved_ = 0;
}

}  // namespace baton::router
