#include "router/http_exchange.h"

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/url.hpp>

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;

using Request = http::request<http::span_body<const char>>;

class ServiceClientImpl final : public ServiceClient {
 public:
  explicit ServiceClientImpl(ServiceUrl url) : url_(std::move(url)) {}

  absl::Status LoadCa(const std::string& ca) {
    if (!url_.tls) return absl::OkStatus();
    asio::ssl::context& context = tls_.emplace(asio::ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    context.set_verify_mode(asio::ssl::verify_peer);
    beast::error_code error;
    ca.empty() ? context.set_default_verify_paths(error) : context.load_verify_file(ca, error);
    if (!error) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("the CA '{}' cannot be used: {}", ca, error.message()));
  }

  absl::StatusOr<ServiceAnswer> Ask(const ServiceRequest& request, Duration timeout,
                                    size_t max_answer_bytes) override {
    Request sent(http::string_to_verb(request.method), request.target, 11);
    sent.set(http::field::host, url_.host + ":" + url_.port);
    sent.set(http::field::user_agent, "baton");
    sent.set(http::field::connection, "close");
    for (const auto& [name, value] : request.headers) sent.set(name, value);
    sent.body() = {request.body.data(), request.body.size()};
    sent.prepare_payload();

    asio::io_context io{1};
    absl::StatusOr<ServiceAnswer> result = absl::DeadlineExceededError(fmt::format(
        "{}:{} did not answer within {:.1f} s", url_.host, url_.port, Seconds(timeout)));
    asio::co_spawn(io, Exchange(sent, max_answer_bytes),
                   [&](const std::exception_ptr& thrown, ServiceAnswer answer) {
                     if (thrown == nullptr) {
                       result = std::move(answer);
                       return;
                     }
                     try {
                       std::rethrow_exception(thrown);
                     } catch (const std::exception& error) {
                       result = absl::UnavailableError(
                           fmt::format("cannot ask {}:{}: {}", url_.host, url_.port, error.what()));
                     }
                   });
    io.run_for(timeout);
    return result;
  }

 private:
  asio::awaitable<ServiceAnswer> Exchange(const Request& request, size_t max_answer_bytes) {
    const auto executor = co_await asio::this_coro::executor;
    asio::ip::tcp::resolver resolver(executor);
    const auto found = co_await resolver.async_resolve(url_.host, url_.port, asio::use_awaitable);
    beast::tcp_stream socket(executor);
    co_await socket.async_connect(found, asio::use_awaitable);
    if (!tls_) co_return co_await Talk(socket, request, max_answer_bytes);
    asio::ssl::stream<beast::tcp_stream&> encrypted(socket, *tls_);
    encrypted.set_verify_callback(asio::ssl::host_name_verification(url_.host));
    SSL_set_tlsext_host_name(encrypted.native_handle(), url_.host.c_str());
    co_await encrypted.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
    co_return co_await Talk(encrypted, request, max_answer_bytes);
  }

  template <typename Stream>
  static asio::awaitable<ServiceAnswer> Talk(Stream& stream, const Request& request,
                                             size_t max_answer_bytes) {
    co_await http::async_write(stream, request, asio::use_awaitable);
    beast::flat_buffer buffer(max_answer_bytes + kMaxHeaderBytes);
    http::response_parser<http::string_body> parser;
    parser.body_limit(max_answer_bytes);
    parser.header_limit(kMaxHeaderBytes);
    co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
    co_return ServiceAnswer{static_cast<int>(parser.get().result_int()),
                            std::move(parser.get().body())};
  }

  const ServiceUrl url_;
  std::optional<asio::ssl::context> tls_;
};

}  // namespace

std::optional<ServiceUrl> ParseServiceUrl(std::string_view url) {
  const auto parsed = boost::urls::parse_uri({url.data(), url.size()});
  if (parsed.has_error()) return std::nullopt;
  const bool tls = parsed->scheme() == "https";
  if (!(tls || parsed->scheme() == "http") || parsed->host().empty() || parsed->has_query() ||
      parsed->has_fragment() || parsed->has_userinfo()) {
    return std::nullopt;
  }
  ServiceUrl service{.tls = tls, .host = parsed->host_address(), .port = {}, .path = {}};
  service.port = parsed->port().empty() ? (tls ? "443" : "80") : std::string(parsed->port());
  service.path = std::string(parsed->encoded_path());
  while (service.path.ends_with('/')) service.path.pop_back();
  return service;
}

absl::StatusOr<std::unique_ptr<ServiceClient>> ServiceClient::Create(ServiceUrl url,
                                                                     const std::string& ca) {
  auto client = std::make_unique<ServiceClientImpl>(std::move(url));
  if (const absl::Status loaded = client->LoadCa(ca); !loaded.ok()) return loaded;
  return std::unique_ptr<ServiceClient>(std::move(client));
}

}  // namespace baton::router
