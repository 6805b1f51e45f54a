#include "router/http_session.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "common/prefetch.h"
#include "router/http_error.h"
#include "router/long_work.h"
#include "router/telemetry.h"

namespace baton::router {
namespace {

namespace net = boost::asio;
using boost::system::error_code;

constexpr size_t kReadyAtOnce = 16;
constexpr size_t kKeptScratchBytes = 1 << 20;
constexpr Duration kLingerTime = std::chrono::seconds(5);

}  // namespace

void HttpLoop::Ready(std::shared_ptr<HttpSession> session, uint64_t call_number, bool urgent) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = ready_.empty() && urgent_.empty();
    (urgent ? urgent_ : ready_).emplace_back(std::move(session), call_number);
  }
  if (first) WakeBatch::Wake(shared_from_this());
}

void HttpLoop::Wake() {
  net::post(io, [this] { CallReady(); });
}

// A few at a time: a step of a large batch brings pieces for a thousand streams, and new requests
// and their first tokens shall not wait behind all of them.
void HttpLoop::CallReady() {
  {
    const std::lock_guard lock(mutex_);
    taken_urgent_.swap(urgent_);
    if (taken_.empty()) taken_.swap(ready_);
  }
  for (const auto& [session, call_number] : taken_urgent_) session->OnWake(call_number);
  taken_urgent_.clear();
  const size_t end = std::min(taken_.size(), next_taken_ + kReadyAtOnce);
  for (; next_taken_ < end; ++next_taken_) {
    if (next_taken_ + 1 < end) Prefetch(taken_[next_taken_ + 1].first.get());
    taken_[next_taken_].first->OnWake(taken_[next_taken_].second);
  }
  if (next_taken_ < taken_.size()) return net::post(io, [this] { CallReady(); });
  taken_.clear();
  next_taken_ = 0;
}

HttpSession::HttpSession(net::ip::tcp::socket socket, SslContext tls, HttpLoop* loop,
                         HttpContext* context)
    : stream_(std::move(socket), std::move(tls)),
      loop_(loop),
      context_(context),
      timer_(loop->io) {}

void HttpSession::Start() {
  loop_->sessions.insert(this);
  error_code ignored;
  stream_.socket().set_option(net::ip::tcp::no_delay(true), ignored);
  stream_.socket().non_blocking(true, ignored);
  if (loop_->closing) {
    Close();
  } else if (stream_.encrypted()) {
    SetDeadline(context_->options().read_timeout);
    stream_.AsyncHandshake(
        [self = shared_from_this()](error_code error) { self->OnGreeted(error); });
  } else {
    NextRequest();
  }
}

void HttpSession::OnGreeted(error_code error) {
  if (state_ == State::kClosed) return;
  if (error) {
    context_->CountFailedHandshake();
    Close();
  } else {
    NextRequest();
  }
}

void HttpSession::Close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();  // the call's wake may be the last to hold it
  state_ = State::kClosed;
  if (call_ != nullptr) call_->Cancel();
  call_.reset();
  FreeBody();
  error_code ignored;
  stream_.socket().close(ignored);
  timer_.cancel();
  loop_->sessions.erase(this);
  context_->CloseConnection();
}

void HttpSession::CloseSoon() {
  if (state_ == State::kIdle) return Close();
  keep_alive_ = false;
  if (afterwards_ == Afterwards::kNextRequest) afterwards_ = Afterwards::kLinger;
}

AnswerFraming HttpSession::framing() const {
  return {.request_id = request_id_,
          .traceparent = traceparent_,
          .keep_alive = keep_alive_,
          .head_only = head_only_,
          .chunked = !http_1_0_,
          .cors_origin = context_->options().cors_origin};
}

void HttpSession::Handle() {
  if (context_->ending()) keep_alive_ = false;
  if (refusal_) {
    FreeBody();
    Respond(*refusal_);
  } else if (route_.is_completion()) {
    StartCall();
  } else {
    const std::string http_metrics =
        route_.resource == Resource::kMetrics ? context_->MetricsText() : "";
    Respond(AnswerGet(route_, *context_->dispatcher(), http_metrics, context_->started_s()));
  }
}

void HttpSession::StartCall() {
  state_ = State::kAnswering;
  ClearDeadline();
  stream_begun_ = false;
  call_ = std::make_shared<CompletionCall>(
      context_->dispatcher(), context_->options().limits, *route_.endpoint(), TakeCall(),
      context_->options().telemetry, std::move(visit_),
      [self = shared_from_this(), loop = loop_, number = ++call_number_](bool first) {
        loop->Ready(self, number, first);
      });
  std::string body = std::move(parser_->get().body());
  if (buffer_.size() < kReadAheadBytes) ReadMore();  // notices when the client goes away
  if (body.size() <= kLongRequestBytes && !MayCompile(body)) {
    call_->Start(body);
    FreeBody();
    return;
  }
  const size_t reserved = std::exchange(body_reserved_, 0);
  context_->Offload([context = context_, reserved, call = call_, text = std::move(body)]() mutable {
    call->Start(text);
    text = {};
    context->FreeBody(reserved);
  });
}

void HttpSession::OnWake(uint64_t call_number) {
  if (call_ == nullptr || call_number != call_number_) return;
  std::string& scratch = loop_->scratch;
  if (scratch.capacity() > kKeptScratchBytes) scratch = {};
  scratch.assign(kChunkHeadBytes, '\0');
  switch (call_->Advance(&scratch)) {
    case CompletionCall::Progress::kWaiting:
      return;
    case CompletionCall::Progress::kStreaming:
      if (outgoing_.size() + writing_.size() - write_offset_ >
          context_->options().max_outgoing_bytes) {
        context_->CountSlowClient();
        Close();
        return;
      }
      return SendStream(/*last=*/false);
    case CompletionCall::Progress::kStreamFailed:
      keep_alive_ = false;
      [[fallthrough]];
    case CompletionCall::Progress::kStreamed:
      return SendStream(/*last=*/true);
    case CompletionCall::Progress::kAnswered: {
      HttpResponse response;
      response.body = scratch.substr(kChunkHeadBytes);
      return Respond(response);
    }
    case CompletionCall::Progress::kFailed: {
      HttpResponse response = ErrorResponse(call_->error(), call_->error_param());
      if (call_->is_tgi()) response.body = TgiErrorBody(call_->error());
      return Respond(response);
    }
  }
}

std::shared_ptr<const CallInfo> HttpSession::TakeCall() {
  auto call = std::make_shared<CallInfo>();
  if (client_.empty()) {
    error_code error;
    const auto peer = stream_.socket().remote_endpoint(error);
    if (!error) client_ = peer.address().to_string();
  }
  call->request_id = request_id_;
  call->client = client_;
  call->endpoint = endpoint_;
  call->received = SystemClock().Now();
  call->arrival_us = UnixMicroseconds();
  call->trace = std::move(trace_);
  return call;
}

// What a CompletionCall took on it tells itself.
void HttpSession::NoteRefusal(const HttpResponse& response) {
  Telemetry* const telemetry = context_->options().telemetry;
  if (telemetry == nullptr || call_ != nullptr || response.status < 400) return;
  const absl::Status why(CodeOfHttp(response.status), response.error);
  telemetry->Ended(RecordOfCall(TakeCall(), response.status, why, Duration{}));
}

void HttpSession::Respond(const HttpResponse& response) {
  state_ = State::kAnswering;
  NoteRefusal(response);
  call_.reset();
  context_->CountResponse(response.status);
  AppendResponse(response, framing(), &outgoing_);
  afterwards_ = keep_alive_ ? Afterwards::kNextRequest : Afterwards::kLinger;
  Flush();
}

void HttpSession::BeginStream() {
  if (std::exchange(stream_begun_, true)) return;
  if (http_1_0_) keep_alive_ = false;  // the end of the connection is the end of the stream
  context_->CountResponse(200);
  AppendStreamHead(framing(), &outgoing_);
}

// The loop's scratch has room for a chunk's head, then the stream's next bytes.
void HttpSession::SendStream(bool last) {
  BeginStream();
  std::string& scratch = loop_->scratch;
  const std::string_view bytes = FrameStreamBytes(!http_1_0_, last, &scratch);
  if (last) {
    call_.reset();
    afterwards_ = keep_alive_ ? Afterwards::kNextRequest : Afterwards::kLinger;
  }
  SendNow(bytes);
}

// What the socket takes at once is copied nowhere else.
void HttpSession::SendNow(std::string_view bytes) {
  if (writing_.empty() && outgoing_.empty() && !stream_.encrypted()) {
    error_code error;
    const size_t written =
        stream_.socket().write_some(net::buffer(bytes.data(), bytes.size()), error);
    if (error && error != net::error::would_block) return OnWriteError();
    bytes.remove_prefix(written);
    if (bytes.empty()) return OnAllWritten();
  }
  outgoing_.append(bytes);
  Flush();
}

void HttpSession::Flush() {
  if (writing_.empty()) WriteOn();
}

// Until all is written, or the socket takes no more: most answers need no wait. With
// TLS a write may be in the way of the read that is outstanding, so Asio orders them.
void HttpSession::WriteOn() {
  while (true) {
    if (write_offset_ == writing_.size()) {
      writing_.clear();
      write_offset_ = 0;
      writing_.swap(outgoing_);
      if (writing_.empty()) return OnAllWritten();
    }
    if (stream_.encrypted()) break;
    error_code error;
    write_offset_ += stream_.socket().write_some(
        net::buffer(writing_.data() + write_offset_, writing_.size() - write_offset_), error);
    if (error == net::error::would_block) break;
    if (error) return OnWriteError();
  }
  if (state_ == State::kAnswering) SetDeadline(context_->options().write_timeout);
  stream_.async_write_some(
      net::buffer(writing_.data() + write_offset_, writing_.size() - write_offset_),
      [self = shared_from_this()](error_code failed, size_t written) {
        self->OnWritten(failed, written);
      });
}

void HttpSession::OnWritten(error_code error, size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return OnWriteError();
  write_offset_ += bytes;
  WriteOn();
}

void HttpSession::OnWriteError() {
  if (call_ != nullptr) context_->CountDisconnect();
  Close();
}

void HttpSession::OnAllWritten() {
  if (state_ == State::kAnswering) ClearDeadline();
  switch (std::exchange(afterwards_, Afterwards::kStay)) {
    case Afterwards::kStay:
      return;
    case Afterwards::kNextRequest:
      NextRequest();
      return;
    case Afterwards::kLinger:
      Linger();
      return;
  }
}

// Closing at once while the client still sends would reset the connection, and the client could
// lose the answer.
void HttpSession::Linger() {
  state_ = State::kLingering;
  SetDeadline(kLingerTime);
  if (stream_.encrypted()) {
    stream_.AsyncShutdown([self = shared_from_this()](error_code) { self->Close(); });
    return;
  }
  error_code ignored;
  stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  if (parsing_) {  // the read that timed out has the buffer
    Close();
    return;
  }
  if (!reading_) ReadMore();
}

void HttpSession::SetDeadline(Duration from_now) {
  deadline_ = std::chrono::steady_clock::now() + from_now;
  if (!timer_armed_ || timer_.expiry() > deadline_) ArmTimer();
}

void HttpSession::ArmTimer() {
  timer_armed_ = true;
  timer_.expires_at(deadline_);  // cancels an earlier wait
  timer_.async_wait([self = shared_from_this()](error_code error) { self->OnTimer(error); });
}

void HttpSession::OnTimer(error_code error) {
  if (error || state_ == State::kClosed) return;
  timer_armed_ = false;
  if (deadline_ == TimePoint::max()) return;
  if (std::chrono::steady_clock::now() < deadline_) {
    ArmTimer();
    return;
  }
  if (state_ == State::kReading) {
    // Tells the client why, if it listens; the read that is outstanding ends with the connection.
    keep_alive_ = false;
    FreeBody();
    Respond(ErrorResponse(408, "the request did not arrive in time", "request_timeout"));
    return;
  }
  if (state_ == State::kAnswering && call_ != nullptr) context_->CountSlowClient();
  Close();
}

}  // namespace baton::router
