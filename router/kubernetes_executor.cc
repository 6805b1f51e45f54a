#include "router/kubernetes_executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cctype>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "common/loopback.h"
#include "common/status_macros.h"
#include "router/http_exchange.h"

namespace baton::router {
namespace {

namespace json = boost::json;
using worker_link::Role;

constexpr size_t kMaxAnswerBytes = 1 << 20;
constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr int64_t kMostReplicas = 10'000;

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
absl::Status ErrorOf(const ServiceAnswer& answer, const std::string& target) {
  std::string message;
  boost::system::error_code bad;
  const json::value body = json::parse(answer.body, bad);
  if (!bad && body.is_object()) {
    const json::value* said = body.get_object().if_contains("message");
    if (said != nullptr && said->is_string()) message = std::string(said->get_string());
  }
  const int status = answer.status;
  const std::string text = fmt::format("{} answered {} {}", target, status, message.substr(0, 512));
  if (status == 401 || status == 403) return absl::PermissionDeniedError(text);
  if (status == 404) return absl::NotFoundError(text);
  if (status == 409) return absl::AbortedError(text);
  return absl::UnavailableError(text);
}

class KubernetesExecutorImpl final : public PlanExecutor {
 public:
  KubernetesExecutorImpl(KubernetesOptions options, std::unique_ptr<ServiceClient> client)
      : options_(std::move(options)), client_(std::move(client)) {}

  absl::StatusOr<int64_t> Replicas(Role role) override {
    BATON_ASSIGN_OR_RETURN(const ServiceAnswer answer, Ask("GET", role, ""));
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
    BATON_ASSIGN_OR_RETURN(const ServiceAnswer answer, Ask("PATCH", role, json::serialize(patch)));
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

  absl::StatusOr<ServiceAnswer> Ask(const char* method, Role role, const std::string& body) {
    ServiceRequest request{.method = method,
                           .target = TargetOf(role),
                           .headers = {{"Accept", "application/json"}},
                           .body = body};
    BATON_ASSIGN_OR_RETURN(const std::string token, Token());
    if (!token.empty()) request.headers.emplace_back("Authorization", "Bearer " + token);
    if (!body.empty()) {
      request.headers.emplace_back("Content-Type", "application/merge-patch+json");
    }
    BATON_ASSIGN_OR_RETURN(ServiceAnswer answer,
                           client_->Ask(request, options_.timeout, kMaxAnswerBytes));
    if (answer.status != 200) return ErrorOf(answer, request.target);
    return answer;
  }

  absl::StatusOr<int64_t> Read(Role role, const ServiceAnswer& answer) {
    boost::system::error_code error;
    const json::value body = json::parse(answer.body, error);
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
                                             answer.body.substr(0, 200)));
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
  const std::unique_ptr<ServiceClient> client_;
  std::array<std::string, 2> versions_;  // by role, as read last
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlanExecutor>> KubernetesExecutor(const KubernetesOptions& options) {
  std::optional<ServiceUrl> url = ParseServiceUrl(options.api);
  if (!url || !url->path.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' is no address of an API server, as in https://10.0.0.1:6443", options.api));
  }
  if (!url->tls && !options.token_file.empty() && !IsLoopback(url->host + ":" + url->port)) {
    return absl::InvalidArgumentError(
        fmt::format("the token would be sent to {} unencrypted: use https", options.api));
  }
  BATON_RETURN_IF_ERROR(CheckWorkload("prefill", options.prefill));
  BATON_RETURN_IF_ERROR(CheckWorkload("decode", options.decode));
  BATON_RETURN_IF_ERROR(CheckWorkload("namespace", "deployments/" + options.space));
  BATON_ASSIGN_OR_RETURN(auto client, ServiceClient::Create(*std::move(url), options.ca_file));
  return std::make_unique<KubernetesExecutorImpl>(options, std::move(client));
}

}  // namespace baton::router
