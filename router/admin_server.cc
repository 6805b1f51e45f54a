#include "router/admin_server.h"

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <thread>
#include <type_traits>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "common/view.h"
#include "router/http_stream.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr std::chrono::seconds kPatience(30);  // between requests, and for each to come or go
constexpr std::chrono::milliseconds kAcceptPause(100);
constexpr size_t kMaxBodyBytes = 64 << 10;
constexpr uint32_t kMaxHeaderBytes = 8 << 10;

class AdminServerImpl final : public AdminServer {
 public:
  explicit AdminServerImpl(const AdminOptions& options)
      : backend_(options.backend), acceptor_(io_), tls_(options.tls) {}
  ~AdminServerImpl() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(const std::string& address) {
    BATON_RETURN_IF_ERROR(tls_.Load());
    const size_t colon = address.rfind(':');
    uint16_t port = 0;
    const char* const end = address.data() + address.size();
    const char* const begin = colon == std::string::npos ? end : address.data() + colon + 1;
    const auto [stop, failed] = std::from_chars(begin, end, port);
    if (failed != std::errc() || stop != end) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not an admin address; it must be HOST:PORT", address));
    }
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    beast::error_code error;
    const auto found =
        tcp::resolver(io_).resolve(host, std::to_string(port), tcp::resolver::passive, error);
    if (error || found.empty()) {
      return absl::InvalidArgumentError(
          fmt::format("cannot resolve the admin address '{}': {}", address, error.message()));
    }
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(
          fmt::format("cannot listen on the admin address {}: {}", address, error.message()));
    }
    const tcp::endpoint real = acceptor_.local_endpoint();
    const std::string text = real.address().to_string();
    address_ = real.address().is_v6() ? fmt::format("[{}]:{}", text, real.port())
                                      : fmt::format("{}:{}", text, real.port());
    asio::co_spawn(io_, Accept(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }

 private:
  asio::awaitable<void> Accept() {
    while (true) {
      beast::error_code error;
      tcp::socket socket =
          co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (error) {  // most likely out of file descriptors: others may close theirs
        LogWarning(fmt::format("cannot accept an admin connection: {}", error.message()));
        asio::steady_timer pause(io_, kAcceptPause);
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      if (connections_ >= kMaxConnections) continue;  // closes it
      ++connections_;
      asio::co_spawn(io_, Greet(beast::tcp_stream(std::move(socket)), tls_.Current()),
                     [this](std::exception_ptr) { --connections_; });
    }
  }

  asio::awaitable<void> Greet(beast::tcp_stream socket, SslContext tls) {
    if (tls == nullptr) co_return co_await Serve(socket, socket);
    asio::ssl::stream<beast::tcp_stream&> encrypted(socket, *tls);
    beast::error_code error;
    socket.expires_after(kPatience);
    co_await encrypted.async_handshake(asio::ssl::stream_base::server,
                                       asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    co_await Serve(encrypted, socket);
    socket.expires_after(kPatience);
    co_await encrypted.async_shutdown(asio::redirect_error(asio::use_awaitable, error));
  }

  // Until the client leaves, is too slow, or sends what is not HTTP. Time-outs are set on `socket`.
  template <typename Stream>
  asio::awaitable<void> Serve(Stream& stream, beast::tcp_stream& socket) {
    beast::flat_buffer buffer(kMaxBodyBytes + kMaxHeaderBytes);
    bool keep_alive = true;
    while (keep_alive) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(kMaxBodyBytes);
      parser.header_limit(kMaxHeaderBytes);
      beast::error_code error;
      socket.expires_after(kPatience);
      co_await http::async_read(stream, buffer, parser,
                                asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return;
      const auto& request = parser.get();
      const HttpResponse answer =
          AnswerAdmin(backend_, {.method = View(request.method_string()),
                                 .target = View(request.target()),
                                 .content_type = View(request[http::field::content_type]),
                                 .body = request.body(),
                                 .authorization = View(request[http::field::authorization])});
      keep_alive = request.keep_alive();
      std::string bytes;
      AppendResponse(answer,
                     {.keep_alive = keep_alive, .head_only = request.method() == http::verb::head},
                     &bytes);
      socket.expires_after(kPatience);
      co_await asio::async_write(stream, asio::buffer(bytes),
                                 asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return;
    }
    beast::error_code ignored;
    if constexpr (std::is_same_v<Stream, beast::tcp_stream>) {
      socket.socket().shutdown(tcp::socket::shutdown_send, ignored);
    }
  }

  const AdminBackend backend_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  HttpTls tls_;          // the thread's
  int connections_ = 0;  // the thread's
  std::string address_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Create(const AdminOptions& options) {
  auto server = std::make_unique<AdminServerImpl>(options);
  BATON_RETURN_IF_ERROR(server->Listen(options.address));
  return server;
}

}  // namespace baton::router
