#pragma once

// A connection's bytes, encrypted or not. Internal to the HTTP server: includes Boost.Asio.

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/file_watch.h"
#include "common/tls_files.h"

namespace baton::router {

using SslContext = std::shared_ptr<boost::asio::ssl::context>;

// An AsyncReadStream and AsyncWriteStream. One read and one write may be outstanding. All on the
// socket's thread.
class HttpStream {
 public:
  using executor_type = boost::asio::ip::tcp::socket::executor_type;

  // `context` null: unencrypted.
  HttpStream(boost::asio::ip::tcp::socket socket, SslContext context)
      : socket_(std::move(socket)), context_(std::move(context)) {
    if (context_ != nullptr) ssl_.emplace(socket_, *context_);
  }

  HttpStream(const HttpStream&) = delete;  // the TLS part holds on to the socket
  HttpStream& operator=(const HttpStream&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  boost::asio::ip::tcp::socket& socket() { return socket_; }
  bool encrypted() const { return ssl_.has_value(); }

  template <typename Handler>
  void AsyncHandshake(Handler handler) {
    ssl_->async_handshake(boost::asio::ssl::stream_base::server, std::move(handler));
  }
  // Tells the other end that nothing more comes.
  template <typename Handler>
  void AsyncShutdown(Handler handler) {
    ssl_->async_shutdown(std::move(handler));
  }

  template <typename Buffers, typename Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    if (ssl_) return ssl_->async_read_some(buffers, std::forward<Handler>(handler));
    return socket_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <typename Buffers, typename Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    if (ssl_) return ssl_->async_write_some(buffers, std::forward<Handler>(handler));
    return socket_.async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  boost::asio::ip::tcp::socket socket_;
  SslContext context_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> ssl_;
};

// The certificate of now. One thread uses it.
class HttpTls {
 public:
  explicit HttpTls(TlsFiles files) : files_(std::move(files)), watch_(files_.paths()) {}

  // Before the first connection; says what is wrong with the files.
  absl::Status Load();
  // For a new connection; null without TLS. Files that changed are read again, at most once a
  // second; unsound ones change nothing and are told in the log.
  SslContext Current();

 private:
  const TlsFiles files_;
  FileWatch watch_;
  SslContext context_;
  std::chrono::steady_clock::time_point next_look_{};
};

}  // namespace baton::router
