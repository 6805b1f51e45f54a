#include "router/otlp_exporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/url.hpp>
#include <random>
#include <span>
#include <utility>

#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "router/otlp_json.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;

constexpr size_t kMaxAnswerBytes = 64 << 10;

// The protocol's list of what may go better later.
bool MayRetry(unsigned status) {
  return status == 429 || status == 502 || status == 503 || status == 504;
}

}  // namespace

// One HTTP exchange at a time.
class OtlpExporter::Collector {
 public:
  static absl::StatusOr<std::unique_ptr<Collector>> Create(const OtlpOptions& options) {
    const auto url = boost::urls::parse_uri(options.endpoint);
    const bool tls = !url.has_error() && url->scheme() == "https";
    if (url.has_error() || !(tls || url->scheme() == "http") || url->host().empty() ||
        url->has_query() || url->has_fragment() || url->has_userinfo()) {
      return absl::InvalidArgumentError(fmt::format(
          "--otlp-endpoint must look like http://127.0.0.1:4318, not '{}'", options.endpoint));
    }
    auto collector = std::make_unique<Collector>();
    collector->host_ = url->host_address();
    collector->port_ = url->has_port() ? std::string(url->port()) : tls ? "443" : "80";
    collector->path_ = url->encoded_path();
    while (collector->path_.ends_with('/')) collector->path_.pop_back();
    collector->path_ += "/v1/traces";
    collector->timeout_ = options.timeout;
    if (!tls) return collector;
    ssl::context& context = collector->tls_.emplace(ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    context.set_verify_mode(ssl::verify_peer);
    beast::error_code error;
    options.ca.empty() ? context.set_default_verify_paths(error)
                       : context.load_verify_file(options.ca, error);
    if (!error) return collector;
    return absl::InvalidArgumentError(
        fmt::format("--otlp-ca {} cannot be used: {}", options.ca, error.message()));
  }

  // Unavailable for what may go better later.
  absl::Status Post(const std::string& body) {
    asio::io_context io{1};
    absl::Status status = absl::InternalError("the exchange did not end");
    asio::co_spawn(io, Exchange(body), [&](std::exception_ptr failure, absl::Status result) {
      status = std::move(result);
      if (failure == nullptr) return;
      try {
        std::rethrow_exception(failure);
      } catch (const boost::system::system_error& error) {
        status = absl::UnavailableError(error.code().message());
      } catch (const std::exception& error) {
        status = absl::UnavailableError(error.what());
      }
    });
    io.run();
    return status;
  }

 private:
  asio::awaitable<absl::Status> Exchange(const std::string& body) {
    const auto executor = co_await asio::this_coro::executor;
    asio::ip::tcp::resolver resolver(executor);
    beast::tcp_stream socket(executor);
    socket.expires_after(timeout_);  // of all that follows
    const auto endpoints = co_await resolver.async_resolve(host_, port_, asio::use_awaitable);
    co_await socket.async_connect(endpoints, asio::use_awaitable);
    if (!tls_) co_return co_await Talk(socket, body);
    ssl::stream<beast::tcp_stream&> encrypted(socket, *tls_);
    encrypted.set_verify_callback(ssl::host_name_verification(host_));
    SSL_set_tlsext_host_name(encrypted.native_handle(), host_.c_str());
    co_await encrypted.async_handshake(ssl::stream_base::client, asio::use_awaitable);
    co_return co_await Talk(encrypted, body);
  }

  template <typename Stream>
  asio::awaitable<absl::Status> Talk(Stream& stream, const std::string& body) {
    http::request<http::span_body<const char>> request(http::verb::post, path_, 11);
    request.set(http::field::host, host_ + ":" + port_);
    request.set(http::field::content_type, "application/json");
    request.set(http::field::user_agent, "baton");
    request.set(http::field::connection, "close");
    request.body() = {body.data(), body.size()};
    request.prepare_payload();
    co_await http::async_write(stream, request, asio::use_awaitable);
    beast::flat_buffer buffer(kMaxAnswerBytes);
    http::response_parser<http::string_body> parser;
    parser.body_limit(kMaxAnswerBytes);
    co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
    const unsigned status = parser.get().result_int();
    if (status >= 200 && status < 300) co_return absl::OkStatus();
    const std::string why =
        fmt::format("it answered {}: {}", status, parser.get().body().substr(0, 256));
    co_return MayRetry(status) ? absl::UnavailableError(why) : absl::InvalidArgumentError(why);
  }

  std::string host_, port_, path_;
  Duration timeout_{};
  std::optional<ssl::context> tls_;
};

absl::StatusOr<std::unique_ptr<OtlpExporter>> OtlpExporter::Create(const OtlpOptions& options) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Collector> collector, Collector::Create(options));
  return std::unique_ptr<OtlpExporter>(new OtlpExporter(options, std::move(collector)));
}

OtlpExporter::OtlpExporter(const OtlpOptions& options, std::unique_ptr<Collector> collector)
    : options_(options), collector_(std::move(collector)), thread_([this] { Run(); }) {}

OtlpExporter::~OtlpExporter() {
  queue_.Close();
  thread_.join();
}

void OtlpExporter::Run() {
  std::mt19937_64 random(RandomU64());
  const std::function<uint64_t()> new_id = [&random] { return std::max<uint64_t>(1, random()); };
  while (true) {
    const bool last = queue_.closed();
    const std::vector<RecordPtr> records = queue_.Take(options_.period);
    for (size_t at = 0; at < records.size(); at += kBatch) {
      if (last && failing_) return;
      const size_t count = std::min(kBatch, records.size() - at);
      const OtlpTraces traces =
          ToOtlp(std::span(records).subspan(at, count), options_.router_name, new_id);
      Export(traces.body, traces.spans);
    }
    if (last && records.empty()) return;
  }
}

void OtlpExporter::Export(const std::string& body, size_t spans) {
  absl::Status status;
  Duration pause = options_.retry_pause;
  for (int i = 0; i < kTries; ++i) {
    status = collector_->Post(body);
    if (!absl::IsUnavailable(status)) break;
    if (i + 1 == kTries || queue_.WaitClosed(pause)) break;
    pause *= 2;
  }
  if (status.ok()) {
    exported_ += spans;
    if (std::exchange(failing_, false)) LogInfo("the trace collector takes spans again");
    return;
  }
  failed_ += spans;
  if (!std::exchange(failing_, true)) {
    LogWarning(fmt::format("spans are lost, the trace collector {} does not take them: {}",
                           options_.endpoint, std::string(status.message())));
  }
}

}  // namespace baton::router
