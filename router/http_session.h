#pragma once

// One HTTP connection. Internal to the HTTP server: includes Boost.Asio and Beast.

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "router/completion_call.h"
#include "router/http_context.h"
#include "router/http_response.h"
#include "router/http_routes.h"
#include "router/http_stream.h"
#include "router/request_record.h"
#include "router/wake_batch.h"

namespace baton::router {

class HttpSession;

// A thread's event loop and the connections that live on it. A connection never changes its loop,
// so what belongs to it needs no locks.
class HttpLoop final : public Wakeable, public std::enable_shared_from_this<HttpLoop> {
 public:
  // The call of this number has something for the session to do; what is urgent goes before what
  // is not. Any thread.
  void Ready(std::shared_ptr<HttpSession> session, uint64_t call_number, bool urgent);
  void Wake() override;

  boost::asio::io_context io{1};
  // The loop's thread only:
  std::string scratch;                        // what a session is about to write
  std::unordered_set<HttpSession*> sessions;  // open ones
  bool closing = false;                       // new ones are closed at once

 private:
  using Calls = std::vector<std::pair<std::shared_ptr<HttpSession>, uint64_t>>;

  void CallReady();

  std::mutex mutex_;
  Calls ready_;   // guarded by mutex_
  Calls urgent_;  // guarded by mutex_
  // The loop's thread only:
  Calls taken_;
  size_t next_taken_ = 0;
  Calls taken_urgent_;
};

inline constexpr size_t kReadAheadBytes = 64 << 10;  // of later requests, while one is answered

// Requests are answered one after the other, in order; what a client sends ahead waits in the
// buffer. While a completion runs, a read stays outstanding: it collects what is sent ahead, and
// its end of file (the client closed, or shut down its sending side) cancels the completion.
//
// Threading: all methods and handlers on the loop's thread; only a call's wake comes from others.
// Lifetime: kept by its outstanding operations and its call until Close.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  // `tls` null: unencrypted.
  HttpSession(boost::asio::ip::tcp::socket socket, SslContext tls, HttpLoop* loop,
              HttpContext* context);

  void Start();
  // Cancels the running completion and closes the socket. Idempotent.
  void Close();
  // At once when it waits for a request, else after the answer.
  void CloseSoon();
  // The call of this number has something to send.
  void OnWake(uint64_t call_number);

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Error = boost::system::error_code;

  enum class State {
    kGreeting,   // TLS is being agreed on
    kIdle,       // waiting for the first bytes of a request
    kReading,    // a request is coming
    kAnswering,  // a request is being answered
    kLingering,  // the answer was the last: waiting for the client to close
    kClosed,
  };
  enum class Afterwards { kStay, kNextRequest, kLinger };  // when everything is written

  // Reading (http_session_read.cc).
  void NextRequest();
  void ReadMore();
  void OnBytes(Error error, size_t bytes);
  void ReadHeader();
  void OnHeader(Error error);
  bool RefuseHeader();  // true: answered already
  bool CheckPost();     // the same for a POST's headers
  bool CheckCaller();   // the same for who asks, and how much
  void ReadBody();
  void OnBody(Error error);
  void OnReadError(Error error);
  void FreeBody();

  // Answering (http_session.cc).
  void Handle();
  void StartCall();
  void Respond(const HttpResponse& response);
  void TakeTrace();  // from the headers
  std::shared_ptr<const CallInfo> TakeCall();
  void NoteRefusal(const HttpResponse& response);
  void BeginStream();
  void SendStream(bool last);
  void SendNow(std::string_view bytes);
  void Flush();
  void WriteOn();
  void OnWritten(Error error, size_t bytes);
  void OnWriteError();
  void OnAllWritten();
  void Linger();
  void OnGreeted(Error error);

  // One timer for all deadlines: moving a deadline back costs nothing until it fires.
  void SetDeadline(Duration from_now);
  void ClearDeadline() { deadline_ = TimePoint::max(); }
  void ArmTimer();
  void OnTimer(Error error);

  AnswerFraming framing() const;

  HttpStream stream_;
  HttpLoop* const loop_;
  HttpContext* const context_;
  State state_ = State::kGreeting;
  Afterwards afterwards_ = Afterwards::kStay;

  boost::beast::flat_buffer buffer_;  // bytes received and not yet parsed
  std::optional<Parser> parser_;
  bool reading_ = false;  // OnBytes is outstanding
  bool parsing_ = false;  // OnHeader or OnBody is outstanding
  size_t body_reserved_ = 0;
  size_t lingered_bytes_ = 0;
  std::shared_ptr<Visit> visit_;         // of the request that is read
  std::optional<HttpResponse> refusal_;  // likewise: its answer, once its body is out of the way

  std::string client_;  // its address, once somebody asked
  std::string request_id_;
  std::string endpoint_;  // the path; "" before it is known
  CallTrace trace_;
  std::string traceparent_;  // for the answer; "": no trace
  Route route_;
  bool keep_alive_ = true;
  bool head_only_ = false;
  bool http_1_0_ = false;

  std::shared_ptr<CompletionCall> call_;
  uint64_t call_number_ = 0;  // tells a late wake of an earlier call
  bool stream_begun_ = false;

  std::string outgoing_;  // to be written next
  std::string writing_;   // being written from write_offset_ on, when not empty
  size_t write_offset_ = 0;

  boost::asio::steady_timer timer_;
  bool timer_armed_ = false;
  TimePoint deadline_ = TimePoint::max();
};

}  // namespace baton::router
