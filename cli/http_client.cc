#include "cli/http_client.h"

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/url.hpp>

#include "common/status_macros.h"

namespace baton::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;

constexpr size_t kMaxErrorBytes = 64 << 10;
constexpr size_t kMaxAnswerBytes = 64 << 20;  // of Fetch

struct Exchange {
  HttpUrl url;
  http::request<http::string_body> request;
  Duration silence;
  const std::function<void(std::string_view)>& on_bytes;
};

// `stream` is connected; `socket` is what its time-outs are set on.
template <typename Stream>
asio::awaitable<absl::Status> Talk(Exchange* exchange, Stream& stream, beast::tcp_stream& socket) {
  co_await http::async_write(stream, exchange->request, asio::use_awaitable);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  socket.expires_after(exchange->silence);
  co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
  const bool ok = http::to_status_class(parser.get().result()) == http::status_class::successful;
  std::string refusal;
  char bytes[8192];
  while (!parser.is_done()) {
    parser.get().body().data = bytes;
    parser.get().body().size = sizeof bytes;
    socket.expires_after(exchange->silence);
    beast::error_code error;
    co_await http::async_read_some(stream, buffer, parser,
                                   asio::redirect_error(asio::use_awaitable, error));
    if (error && error != http::error::need_buffer) throw beast::system_error(error);
    const std::string_view piece(bytes, sizeof bytes - parser.get().body().size);
    if (ok) {
      exchange->on_bytes(piece);
    } else if (refusal.size() < kMaxErrorBytes) {
      refusal += piece;
    }
  }
  if (ok) co_return absl::OkStatus();
  co_return absl::FailedPreconditionError(
      fmt::format("the router answered {}: {}", parser.get().result_int(), refusal));
}

absl::StatusOr<ssl::context> ContextOf(const HttpUrl& url) {
  ssl::context context(ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  context.set_verify_mode(url.insecure_tls ? ssl::verify_none : ssl::verify_peer);
  beast::error_code error;
  if (url.files.ca.empty()) {
    context.set_default_verify_paths(error);
  } else {
    context.load_verify_file(url.files.ca, error);
  }
  if (error) {
    return absl::InvalidArgumentError(
        fmt::format("the CA {} cannot be used: {}", url.files.ca, error.message()));
  }
  if (!url.files.on()) return context;
  BATON_RETURN_IF_ERROR(CheckTlsFiles({url.files.certificate, url.files.key, ""}, /*prefix=*/"-"));
  context.use_certificate_chain_file(url.files.certificate, error);
  if (!error) context.use_private_key_file(url.files.key, ssl::context::pem, error);
  if (!error) return context;
  return absl::InvalidArgumentError(
      fmt::format("the certificate {} cannot be used: {}", url.files.certificate, error.message()));
}

asio::awaitable<absl::Status> RunExchange(Exchange* exchange) {
  const auto executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  beast::tcp_stream socket(executor);
  const auto endpoints =
      co_await resolver.async_resolve(exchange->url.host, exchange->url.port, asio::use_awaitable);
  socket.expires_after(exchange->silence);
  co_await socket.async_connect(endpoints, asio::use_awaitable);
  if (!exchange->url.tls) co_return co_await Talk(exchange, socket, socket);
  absl::StatusOr<ssl::context> context = ContextOf(exchange->url);
  if (!context.ok()) co_return context.status();
  ssl::stream<beast::tcp_stream&> encrypted(socket, *context);
  encrypted.set_verify_callback(ssl::host_name_verification(exchange->url.host));
  SSL_set_tlsext_host_name(encrypted.native_handle(), exchange->url.host.c_str());
  co_await encrypted.async_handshake(ssl::stream_base::client, asio::use_awaitable);
  co_return co_await Talk(exchange, encrypted, socket);
}

}  // namespace

absl::StatusOr<HttpUrl> ParseUrl(std::string_view url) {
  const auto parsed = boost::urls::parse_uri({url.data(), url.size()});
  const bool tls = !parsed.has_error() && parsed->scheme() == "https";
  if (parsed.has_error() || !(tls || parsed->scheme() == "http") || parsed->host().empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "the URL must look like http://127.0.0.1:8000 or https://example.org, not '{}'", url));
  }
  HttpUrl result;
  result.host = parsed->host_address();
  result.port = parsed->has_port() ? std::string(parsed->port()) : (tls ? "443" : "80");
  result.tls = tls;
  return result;
}

namespace {

absl::Status Run(Exchange* exchange) {
  const HttpUrl& url = exchange->url;
  exchange->request.set(http::field::host, url.host + ":" + url.port);
  exchange->request.set(http::field::content_type, "application/json");
  exchange->request.set(http::field::connection, "close");
  if (!url.api_key.empty()) {
    exchange->request.set(http::field::authorization, "Bearer " + url.api_key);
  }
  exchange->request.prepare_payload();
  absl::Status status = absl::InternalError("the exchange did not end");
  asio::io_context context;
  asio::co_spawn(context, RunExchange(exchange),
                 [&](std::exception_ptr failure, absl::Status result) {
                   status = std::move(result);
                   if (failure == nullptr) return;
                   try {
                     std::rethrow_exception(failure);
                   } catch (const std::exception& error) {
                     status = absl::UnavailableError(fmt::format("no answer from {}://{}:{}: {}",
                                                                 url.tls ? "https" : "http",
                                                                 url.host, url.port, error.what()));
                   }
                 });
  context.run();
  return status;
}

}  // namespace

absl::Status PostJson(const HttpUrl& url, std::string_view path, std::string body, Duration silence,
                      const std::function<void(std::string_view)>& on_bytes) {
  Exchange exchange{.url = url,
                    .request = {http::verb::post, {path.data(), path.size()}, 11},
                    .silence = silence,
                    .on_bytes = on_bytes};
  exchange.request.body() = std::move(body);
  return Run(&exchange);
}

absl::StatusOr<std::string> Fetch(const HttpUrl& url, std::string_view method,
                                  std::string_view path, std::string body, Duration silence) {
  std::string answer;
  const std::function<void(std::string_view)> on_bytes = [&answer](std::string_view bytes) {
    if (answer.size() < kMaxAnswerBytes) answer += bytes;
  };
  Exchange exchange{.url = url,
                    .request = {http::string_to_verb({method.data(), method.size()}),
                                {path.data(), path.size()},
                                11},
                    .silence = silence,
                    .on_bytes = on_bytes};
  exchange.request.body() = std::move(body);
  BATON_RETURN_IF_ERROR(Run(&exchange));
  return answer;
}

void EventStream::Push(std::string_view bytes) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.ends_with('\r')) line_.pop_back();
    if (line_.starts_with("data: ")) on_data_(std::string_view(line_).substr(6));
    line_.clear();
  }
}

}  // namespace baton::cli
