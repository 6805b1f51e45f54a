#include "cli/router_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "common/file_limit.h"
#include "common/logging.h"
#include "common/loopback.h"
#include "common/status_macros.h"

namespace baton::cli {

void AddRouterFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option("--http", flags->http,
                  "OpenAI API, /metrics, /health, /ready; port 0: a free one")
      ->capture_default_str();
  app->add_option("--grpc", flags->grpc, "baton.v1, health, reflection; port 0: a free one")
      ->capture_default_str();
  app->add_option("--admin", flags->admin,
                  "admin API, for 'baton drain' and 'baton role', which look for it at "
                  "127.0.0.1:8002; port 0: a free one; off if empty");
  app->add_option("--served-model-name", flags->model_name,
                  "the model's name for clients; from the file when not given");
  app->add_option("--max-concurrent-requests", flags->max_concurrent_requests,
                  "most requests at a time, those that wait among them; 429 above")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--max-waiting-requests", flags->max_waiting_requests,
                  "most requests that wait for the fleet; 429 above; 0: as many as there may be")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app->add_option("--max-input-tokens", flags->max_input_tokens,
                  "longest prompt; 0: what the context allows")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--max-total-tokens", flags->max_total_tokens,
                  "longest prompt and answer together; 0: the context")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--keys-file", flags->keys_file,
                  "API keys ('baton keys'), read again when it changes; without it everybody may "
                  "ask");
  app->add_flag("--metrics-need-key", flags->metrics_need_key, "/metrics needs an API key too");
  app->add_option("--max-connections", flags->max_connections,
                  "most HTTP connections at a time; 503 above")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--http-threads", flags->http_threads, "threads of the HTTP front end")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app->add_option("--request-timeout", flags->request_timeout_s,
                  "longest life of a request, seconds")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app->add_option("--worker-wait", flags->worker_wait_s,
                  "how long a request waits for a worker to come, seconds")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  app->add_option("--local-prefill-tokens", flags->local_prefill_tokens,
                  "prompts up to this long are prefilled by the decode worker")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--stall-timeout", flags->stall_timeout_s,
                  "a worker that says nothing for so long loses its streams to others, seconds")
      ->check(CLI::Range(0.2, 3600.0))
      ->capture_default_str();
  app->add_option("--max-migrations", flags->max_migrations,
                  "how often a request goes on at another worker after failures; 0: never")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app->add_option("--retry-share", flags->retry_share,
                  "of the requests of the last 10 s, how many may be placed again after failures")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app->add_option("--drain-timeout", flags->drain_timeout_s,
                  "how long running requests may take to end at shutdown, seconds")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app->add_option("--tls-cert", flags->tls.certificate,
                  "PEM certificate of HTTP and gRPC, with its chain; read again when it changes");
  app->add_option("--tls-key", flags->tls.key, "its private key");
  app->add_option("--tls-client-ca", flags->tls.ca,
                  "PEM CA: only clients with a certificate from it are served");
  app->add_flag("--insecure", flags->insecure, "allow addresses other than loopback, unencrypted");
  AddControlFlags(app, &flags->control);
}

void AddLinkFlags(CLI::App* app, TlsFiles* tls) {
  app->add_option("--link-cert", tls->certificate,
                  "PEM certificate of this end of the links between routers and workers");
  app->add_option("--link-key", tls->key, "its private key");
  app->add_option("--link-ca", tls->ca, "PEM CA that the other end's certificate must be from");
}

std::vector<std::string> LinkArguments(const TlsFiles& tls) {
  if (!tls.on()) return {};
  return {"--link-cert=" + tls.certificate, "--link-key=" + tls.key, "--link-ca=" + tls.ca};
}

absl::Status CheckLinkTls(const TlsFiles& tls) {
  BATON_RETURN_IF_ERROR(CheckTlsFiles(tls, "--link"));
  if (!tls.on() || !tls.ca.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--link-cert needs --link-ca: both ends of a link show who they are");
}

std::vector<std::string> ToArguments(const RouterFlags& flags) {
  std::vector<std::string> arguments = {
      "--http=" + flags.http,
      "--grpc=" + flags.grpc,
      fmt::format("--max-concurrent-requests={}", flags.max_concurrent_requests),
      fmt::format("--max-waiting-requests={}", flags.max_waiting_requests),
      fmt::format("--max-input-tokens={}", flags.max_input_tokens),
      fmt::format("--max-total-tokens={}", flags.max_total_tokens),
      fmt::format("--metrics-need-key={}", flags.metrics_need_key),
      fmt::format("--max-connections={}", flags.max_connections),
      fmt::format("--http-threads={}", flags.http_threads),
      fmt::format("--request-timeout={}", flags.request_timeout_s),
      fmt::format("--worker-wait={}", flags.worker_wait_s),
      fmt::format("--local-prefill-tokens={}", flags.local_prefill_tokens),
      fmt::format("--stall-timeout={}", flags.stall_timeout_s),
      fmt::format("--max-migrations={}", flags.max_migrations),
      fmt::format("--retry-share={}", flags.retry_share),
      fmt::format("--drain-timeout={}", flags.drain_timeout_s),
      fmt::format("--insecure={}", flags.insecure)};
  for (const auto& [flag, path] :
       {std::pair("--tls-cert=", &flags.tls.certificate), std::pair("--tls-key=", &flags.tls.key),
        std::pair("--tls-client-ca=", &flags.tls.ca),
        std::pair("--link-name=", &flags.link_name)}) {
    if (!path->empty()) arguments.push_back(flag + *path);
  }
  for (std::string& argument : LinkArguments(flags.link_tls)) {
    arguments.push_back(std::move(argument));
  }
  for (std::string& argument : ControlArguments(flags.control)) {
    arguments.push_back(std::move(argument));
  }
  if (!flags.keys_file.empty()) arguments.push_back("--keys-file=" + flags.keys_file);
  if (!flags.admin.empty()) arguments.push_back("--admin=" + flags.admin);
  if (!flags.model_name.empty()) arguments.push_back("--served-model-name=" + flags.model_name);
  return arguments;
}

absl::Status CheckAddress(const char* flag, const std::string& address, bool tls, bool insecure,
                          const char* tls_flags) {
  if (IsLoopback(address) || tls || insecure) return absl::OkStatus();
  return absl::PermissionDeniedError(fmt::format(
      "{} {} is not a loopback address, and connections there would not be encrypted: give {}, or "
      "--insecure where the network is trusted",
      flag, address, tls_flags));
}

absl::StatusOr<std::unique_ptr<RouterNode>> RouterNode::Start(const RouterFlags& flags,
                                                              router::DispatcherOptions options) {
  constexpr char kTlsFlags[] = "--tls-cert and --tls-key";
  BATON_RETURN_IF_ERROR(CheckTlsFiles(flags.tls, "--tls"));
  BATON_RETURN_IF_ERROR(CheckLinkTls(flags.link_tls));
  BATON_RETURN_IF_ERROR(
      CheckAddress("--http", flags.http, flags.tls.on(), flags.insecure, kTlsFlags));
  BATON_RETURN_IF_ERROR(
      CheckAddress("--grpc", flags.grpc, flags.tls.on(), flags.insecure, kTlsFlags));
  if (!flags.admin.empty()) {
    BATON_RETURN_IF_ERROR(
        CheckAddress("--admin", flags.admin, /*tls=*/false, flags.insecure, "a loopback address"));
  }
  for (const std::string& worker : options.workers) {
    BATON_RETURN_IF_ERROR(CheckAddress("--workers", worker, flags.link_tls.on(), flags.insecure,
                                       "--link-cert, --link-key and --link-ca"));
  }
  options.link_security = {flags.link_tls, flags.link_name};
  options.only_safe_links = !flags.insecure;
  BATON_ASSIGN_OR_RETURN(options.control, ControlOptionsOf(flags.control));
  RaiseFileLimit();
  options.model_name = flags.model_name;
  options.max_concurrent = flags.max_concurrent_requests;
  options.max_waiting = flags.max_waiting_requests;
  options.limits.max_input_tokens = flags.max_input_tokens;
  options.limits.max_total_tokens = flags.max_total_tokens;
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.worker_wait = std::chrono::seconds(flags.worker_wait_s);
  options.local_prefill_tokens = flags.local_prefill_tokens;
  options.stall_timeout =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(flags.stall_timeout_s));
  options.max_migrations = flags.max_migrations;
  options.retry_share = flags.retry_share;
  std::unique_ptr<RouterNode> node(new RouterNode());
  node->drain_timeout_ = std::chrono::seconds(flags.drain_timeout_s);
  BATON_ASSIGN_OR_RETURN(node->gate_, router::KeyGate::Create({.keys_file = flags.keys_file}));
  BATON_ASSIGN_OR_RETURN(node->dispatcher_, router::Dispatcher::Create(options));
  router::HttpOptions http;
  http.address = flags.http;
  http.threads = flags.http_threads;
  http.max_connections = flags.max_connections;
  http.limits = options.limits;
  http.tls = flags.tls;
  http.gate = node->gate_.get();
  http.open_metrics = !flags.metrics_need_key;
  BATON_ASSIGN_OR_RETURN(node->http_, router::HttpServer::Create(http, node->dispatcher_.get()));
  router::GrpcOptions grpc;
  grpc.address = flags.grpc;
  grpc.limits = options.limits;
  grpc.tls = flags.tls;
  grpc.gate = node->gate_.get();
  BATON_ASSIGN_OR_RETURN(node->grpc_, router::GrpcServer::Create(grpc, node->dispatcher_.get()));
  if (!flags.admin.empty()) {
    BATON_ASSIGN_OR_RETURN(node->admin_,
                           router::AdminServer::Create(flags.admin, node->dispatcher_.get()));
  }
  return node;
}

std::string RouterNode::Addresses() const {
  return fmt::format("http={} grpc={}{} model={}", http_->address(), grpc_->address(),
                     admin_ == nullptr ? "" : " admin=" + admin_->address(),
                     dispatcher_->Models().front().name);
}

void RouterNode::Drain() {
  LogInfo(fmt::format("draining: {} requests run", dispatcher_->running()));
  if (!dispatcher_->Drain(drain_timeout_)) {
    LogWarning(fmt::format("{} requests still run after {:.0f} s and are cut off",
                           dispatcher_->running(), Seconds(drain_timeout_)));
  }
}

}  // namespace baton::cli
