#include "router/http_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <thread>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/http_context.h"
#include "router/http_session.h"
#include "router/long_work.h"

namespace baton::router {
namespace {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
constexpr Duration kLookInterval = std::chrono::milliseconds(2);

// "host:port", "[::1]:port".
absl::StatusOr<tcp::endpoint> Resolve(const std::string& address, net::io_context& io) {
  const size_t colon = address.rfind(':');
  uint16_t port = 0;
  const char* end = address.data() + address.size();
  const char* begin = colon == std::string::npos ? end : address.data() + colon + 1;
  const auto [stop, failed] = std::from_chars(begin, end, port);
  if (failed != std::errc() || stop != end) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not an HTTP address; it must be HOST:PORT", address));
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("cannot resolve the HTTP address '{}': {}", address, error.message()));
  }
  return found.begin()->endpoint();
}

std::vector<std::shared_ptr<HttpLoop>> MakeLoops(int32_t count) {
  std::vector<std::shared_ptr<HttpLoop>> loops;
  for (int32_t i = 0; i < count; ++i) loops.push_back(std::make_shared<HttpLoop>());
  return loops;
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(const HttpOptions& options, Dispatcher* dispatcher)
      : context_(options, dispatcher,
                 // Bounded by the memory for bodies (HttpContext::ReserveBody).
                 [this](std::function<void()> work) {
                   long_work_.Do(0, std::move(work)).IgnoreError();
                 }),
        loops_(MakeLoops(std::max(1, options.threads))),
        acceptor_(loops_.front()->io),
        pause_(loops_.front()->io),
        tls_(options.tls) {}

  ~BeastServer() override {
    net::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
      pause_.cancel();
      stopping_ = true;
    });
    for (const std::shared_ptr<HttpLoop>& loop : loops_) {
      net::post(loop->io, [loop = loop.get()] {
        loop->closing = true;
        const std::vector<HttpSession*> open(loop->sessions.begin(), loop->sessions.end());
        for (HttpSession* session : open) session->Close();
      });
    }
    long_work_.Finish();
    guards_.clear();  // each loop ends when its connections have
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Listen() {
    BATON_RETURN_IF_ERROR(tls_.Load());
    BATON_ASSIGN_OR_RETURN(const tcp::endpoint endpoint,
                           Resolve(context_.options().address, loops_.front()->io));
    error_code error;
    acceptor_.open(endpoint.protocol(), error);
    // Takes a port whose old connections are in TIME_WAIT, never one that somebody listens on.
    if (!error) acceptor_.set_option(net::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(net::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(fmt::format("cannot listen on the HTTP address {}: {}",
                                                context_.options().address, error.message()));
    }
    const tcp::endpoint real = acceptor_.local_endpoint();
    const std::string host = real.address().to_string();
    address_ = real.address().is_v6() ? fmt::format("[{}]:{}", host, real.port())
                                      : fmt::format("{}:{}", host, real.port());
    return absl::OkStatus();
  }

  void Run() {
    Accept();
    for (const std::shared_ptr<HttpLoop>& loop : loops_) {
      guards_.push_back(net::make_work_guard(loop->io));
      threads_.emplace_back([loop = loop.get()] { loop->io.run(); });
    }
  }

  std::string address() const override { return address_; }
  void AnnounceEnd() override { context_.End(); }
  void EndConnections(Duration patience) override {
    context_.End();
    net::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
    });
    for (const std::shared_ptr<HttpLoop>& loop : loops_) {
      net::post(loop->io, [loop = loop.get()] {
        const std::vector<HttpSession*> open(loop->sessions.begin(), loop->sessions.end());
        for (HttpSession* session : open) session->CloseSoon();
      });
    }
    const TimePoint deadline = SystemClock().Now() + patience;
    while (context_.connections() > 0 && SystemClock().Now() < deadline) {
      std::this_thread::sleep_for(kLookInterval);
    }
  }

  std::string MetricsText() const override {
    return context_.dispatcher()->MetricsText() + context_.MetricsText();
  }

 private:
  // Connections go to the loops in turn.
  void Accept() {
    HttpLoop* const loop = loops_[next_loop_++ % loops_.size()].get();
    acceptor_.async_accept(loop->io, [this, loop](error_code error, tcp::socket socket) {
      if (stopping_ || error == net::error::operation_aborted) return;
      if (error) {  // most likely out of file descriptors: others may close theirs
        LogWarning(fmt::format("cannot accept an HTTP connection: {}", error.message()));
        pause_.expires_after(kAcceptPause);
        pause_.async_wait([this](error_code stopped) {
          if (!stopped) Accept();
        });
        return;
      }
      if (context_.OpenConnection()) {
        net::post(
            loop->io, [this, loop, client = std::move(socket), tls = tls_.Current()]() mutable {
              std::make_shared<HttpSession>(std::move(client), std::move(tls), loop, &context_)
                  ->Start();
            });
      } else {
        Refuse(std::move(socket));
      }
      Accept();
    });
  }

  // One try without waiting: a client that is not served may not cost anything either.
  void Refuse(tcp::socket socket) {
    context_.CountResponse(503);
    if (context_.options().tls.on()) return;  // it would have to be greeted first
    std::string answer;
    AppendResponse(ErrorResponse(503,
                                 fmt::format("there are {} connections already",
                                             context_.options().max_connections),
                                 "too_many_connections"),
                   {.request_id = "", .keep_alive = false}, &answer);
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(net::buffer(answer), ignored);
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  }

  HttpContext context_;
  // Shared with who has yet to wake them.
  const std::vector<std::shared_ptr<HttpLoop>> loops_;
  tcp::acceptor acceptor_;   // on the first loop
  net::steady_timer pause_;  // likewise
  HttpTls tls_;              // the first loop's thread
  bool stopping_ = false;    // the first loop's thread
  size_t next_loop_ = 0;     // the first loop's thread
  LongWork long_work_;
  std::vector<net::executor_work_guard<net::io_context::executor_type>> guards_;
  std::vector<std::thread> threads_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const HttpOptions& options,
                                                               Dispatcher* dispatcher) {
  auto server = std::make_unique<BeastServer>(options, dispatcher);
  BATON_RETURN_IF_ERROR(server->Listen());
  server->Run();
  return server;
}

}  // namespace baton::router
