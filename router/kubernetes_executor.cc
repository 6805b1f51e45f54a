#include "router/kubernetes_executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/json.hpp>
#include <boost/url.hpp>
#include <cctype>
#include <fstream>
#include <iterator>
#include <utility>

#include "common/loopback.h"
#include "common/status_macros.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using asio::ip::tcp;
using worker_link::Role;

constexpr size_t kMaxAnswerBytes = 1 << 20;
constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr int64_t kMostReplicas = 10'000;

using Request = http::request<http::string_body>;
using Answer = http::response<http::string_body>;

struct Api {
  bool tls = true;
  std::string host, port;
};

template <typename Stream>
asio::awaitable<Answer> Exchange(Stream& stream, const Request& request) {
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer(kMaxAnswerBytes + kMaxHeaderBytes);
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswerBytes);
  parser.header_limit(kMaxHeaderBytes);
  co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
  co_return parser.release();
}

asio::awaitable<Answer> Call(const Api& api, asio::ssl::context& tls, const Request& request,
                             Duration timeout) {
  const auto executor = co_await asio::this_coro::executor;
  tcp::resolver resolver(executor);
  const auto found = co_await resolver.async_resolve(api.host, api.port, asio::use_awaitable);
  if (!api.tls) {
    beast::tcp_stream stream(executor);
    stream.expires_after(timeout);
    co_await stream.async_connect(found, asio::use_awaitable);
    co_return co_await Exchange(stream, request);
  }
  beast::ssl_stream<beast::tcp_stream> stream(executor, tls);
  SSL_set_tlsext_host_name(stream.native_handle(), api.host.c_str());
  stream.set_verify_callback(asio::ssl::host_name_verification(api.host));
  auto& socket = beast::get_lowest_layer(stream);
  socket.expires_after(timeout);
  co_await socket.async_connect(found, asio::use_awaitable);
  co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
  co_return co_await Exchange(stream, request);
}

// "statefulsets/NAME", with a name as Kubernetes has them.
absl::Status CheckWorkload(const char* role, const std::string& workload) {
  const size_t slash = workload.find('/');
  const std::string resource = workload.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : workload.substr(slash + 1);
  const bool named = !name.empty() && name.size() <= 253 && std::ranges::all_of(name, [](char c) {
    return std::isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '.';
  });
  if (named && (resource == "statefulsets" || resource == "deployments")) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the {} workers' workload is '{}', but must be statefulsets/NAME or "
                  "deployments/NAME",
                  role, workload));
}

// What went wrong, in the server's words where it has some.
absl::Status ErrorOf(const Answer& answer, const std::string& target) {
  std::string message;
  boost::system::error_code bad;
  const json::value body = json::parse(answer.body(), bad);
  if (!bad && body.is_object()) {
    const json::value* said = body.get_object().if_contains("message");
    if (said != nullptr && said->is_string()) message = std::string(said->get_string());
  }
  const int status = answer.result_int();
  const std::string text = fmt::format("{} answered {} {}", target, status, message.substr(0, 512));
  if (status == 401 || status == 403) return absl::PermissionDeniedError(text);
  if (status == 404) return absl::NotFoundError(text);
  if (status == 409) return absl::AbortedError(text);
  return absl::UnavailableError(text);
}

class KubernetesExecutorImpl final : public PlanExecutor {
 public:
  KubernetesExecutorImpl(KubernetesOptions options, Api api)
      : options_(std::move(options)), api_(std::move(api)) {}

  absl::Status LoadCa() {
    boost::system::error_code error;
    tls_.set_verify_mode(asio::ssl::verify_peer);
    if (options_.ca_file.empty()) {
      tls_.set_default_verify_paths(error);
    } else {
      tls_.load_verify_file(options_.ca_file, error);
    }
    if (!error || !api_.tls) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format("cannot read the CA of {} from '{}': {}",
                                                  options_.api, options_.ca_file, error.message()));
  }

  absl::StatusOr<int64_t> Replicas(Role role) override {
    BATON_ASSIGN_OR_RETURN(const Answer answer, Ask(http::verb::get, role, ""));
    return Read(role, answer);
  }

  absl::Status SetReplicas(Role role, int64_t replicas) override {
    if (replicas < 0 || replicas > kMostReplicas) {
      return absl::InvalidArgumentError(
          fmt::format("{} replicas: must be 0 to {}", replicas, kMostReplicas));
    }
    json::object patch{{"spec", json::object{{"replicas", replicas}}}};
    // Whoever has changed it since it was read wins.
    const std::string& version = versions_[static_cast<size_t>(role)];
    if (!version.empty()) patch["metadata"] = json::object{{"resourceVersion", version}};
    BATON_ASSIGN_OR_RETURN(const Answer answer,
                           Ask(http::verb::patch, role, json::serialize(patch)));
    BATON_ASSIGN_OR_RETURN(const int64_t now, Read(role, answer));
    if (now == replicas) return absl::OkStatus();
    return absl::InternalError(
        fmt::format("{} replicas were asked for, {} are set", replicas, now));
  }

 private:
  std::string TargetOf(Role role) const {
    return fmt::format("/apis/apps/v1/namespaces/{}/{}/scale", options_.space,
                       role == Role::kPrefill ? options_.prefill : options_.decode);
  }

  absl::StatusOr<std::string> Token() const {
    if (options_.token_file.empty()) return std::string();
    std::ifstream file(options_.token_file, std::ios::binary);
    std::string token(std::istreambuf_iterator<char>(file), {});
    while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back()))) {
      token.pop_back();
    }
    const bool sound = std::ranges::all_of(token, [](char c) { return c > ' ' && c < 127; });
    if (!token.empty() && token.size() <= kMaxTokenBytes && sound) return token;
    return absl::FailedPreconditionError(
        fmt::format("there is no token in '{}'", options_.token_file));
  }

  absl::StatusOr<Answer> Ask(http::verb verb, Role role, std::string body) {
    Request request(verb, TargetOf(role), 11);
    request.set(http::field::host, api_.host);
    request.set(http::field::accept, "application/json");
    request.set(http::field::user_agent, "baton");
    request.set(http::field::connection, "close");
    BATON_ASSIGN_OR_RETURN(const std::string token, Token());
    if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
    if (!body.empty()) {
      request.set(http::field::content_type, "application/merge-patch+json");
      request.body() = std::move(body);
    }
    request.prepare_payload();

    asio::io_context io(1);
    absl::StatusOr<Answer> result = absl::DeadlineExceededError(
        fmt::format("{} did not answer within {} s", options_.api, Seconds(options_.timeout)));
    asio::co_spawn(io, Call(api_, tls_, request, options_.timeout),
                   [&](const std::exception_ptr& thrown, Answer answer) {
                     if (thrown == nullptr) {
                       result = std::move(answer);
                       return;
                     }
                     try {
                       std::rethrow_exception(thrown);
                     } catch (const std::exception& error) {
                       result = absl::UnavailableError(
                           fmt::format("cannot ask {}: {}", options_.api, error.what()));
                     }
                   });
    io.run_for(options_.timeout);
    if (result.ok() && result->result() != http::status::ok) {
      return ErrorOf(*result, std::string(request.target()));
    }
    return result;
  }

  absl::StatusOr<int64_t> Read(Role role, const Answer& answer) {
    boost::system::error_code error;
    const json::value body = json::parse(answer.body(), error);
    const json::value* spec = nullptr;
    const json::value* metadata = nullptr;
    if (!error && body.is_object()) {
      spec = body.get_object().if_contains("spec");
      metadata = body.get_object().if_contains("metadata");
    }
    const json::value* replicas =
        spec != nullptr && spec->is_object() ? spec->get_object().if_contains("replicas") : nullptr;
    // A workload that is scaled to nothing has no field.
    const bool none = spec != nullptr && spec->is_object() && replicas == nullptr;
    if (!none && (replicas == nullptr || !replicas->is_int64() || replicas->get_int64() < 0)) {
      return absl::InternalError(fmt::format("{} did not answer with a Scale: {}", options_.api,
                                             answer.body().substr(0, 200)));
    }
    std::string& version = versions_[static_cast<size_t>(role)];
    version.clear();
    if (metadata != nullptr && metadata->is_object()) {
      const json::value* told = metadata->get_object().if_contains("resourceVersion");
      if (told != nullptr && told->is_string()) version = std::string(told->get_string());
    }
    return none ? 0 : replicas->get_int64();
  }

  const KubernetesOptions options_;
  const Api api_;
  asio::ssl::context tls_{asio::ssl::context::tls_client};
  std::array<std::string, 2> versions_;  // by role, as read last
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlanExecutor>> KubernetesExecutor(const KubernetesOptions& options) {
  const auto url = boost::urls::parse_uri(options.api);
  const bool https = url && url->scheme() == "https";
  const bool plain = url && url->scheme() == "http";
  const std::string path = url ? std::string(url->encoded_path()) : "";
  if ((!https && !plain) || url->host().empty() || (!path.empty() && path != "/") ||
      url->has_query() || url->has_userinfo()) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' is no address of an API server, as in https://10.0.0.1:6443", options.api));
  }
  Api api{.tls = https, .host = url->host_address(), .port = std::string(url->port())};
  if (api.port.empty()) api.port = https ? "443" : "80";
  if (plain && !options.token_file.empty() && !IsLoopback(api.host + ":" + api.port)) {
    return absl::InvalidArgumentError(
        fmt::format("the token would be sent to {} unencrypted: use https", options.api));
  }
  BATON_RETURN_IF_ERROR(CheckWorkload("prefill", options.prefill));
  BATON_RETURN_IF_ERROR(CheckWorkload("decode", options.decode));
  BATON_RETURN_IF_ERROR(CheckWorkload("namespace", "deployments/" + options.space));
  auto executor = std::make_unique<KubernetesExecutorImpl>(options, std::move(api));
  BATON_RETURN_IF_ERROR(executor->LoadCa());
  return std::unique_ptr<PlanExecutor>(std::move(executor));
}

}  // namespace baton::router
