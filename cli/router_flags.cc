#include "cli/router_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "cli/signals.h"
#include "common/file_limit.h"
#include "common/logging.h"
#include "common/loopback.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr Duration kLastWords = std::chrono::seconds(1);  // for answers that are over, but not read

void AddAdminFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option(
      "--admin", flags->admin,
      "admin API, for 'baton drain', 'baton role' and 'baton top', which look for it at "
      "127.0.0.1:8002; port 0: a free one; off if empty");
  app->add_option("--admin-keys-file", flags->admin_keys_file,
                  "keys of the admin API ('baton keys'), read again when it changes; without it "
                  "everybody may ask");
  app->add_option("--admin-tls-cert", flags->admin_tls.certificate,
                  "PEM certificate of the admin API; --tls-cert when not given");
  app->add_option("--admin-tls-key", flags->admin_tls.key, "its private key");
  app->add_option("--admin-tls-client-ca", flags->admin_tls.ca,
                  "PEM CA: only operators with a certificate from it are answered");
}

void AddTelemetryFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option("--access-log", flags->access_log,
                  "file for a JSON line a request, opened again on SIGHUP; '-': standard output");
  app->add_option("--otlp-endpoint", flags->otlp_endpoint,
                  "OpenTelemetry collector for traces: http://127.0.0.1:4318; off if empty");
  app->add_option(
      "--otlp-ca", flags->otlp_ca,
      "PEM CA that an https collector's certificate must be from; the system's when not "
      "given");
  app->add_option(
         "--trace-ratio", flags->trace_ratio,
         "share of the traces that begin here that is recorded; a caller's decision is kept")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
}

}  // namespace

namespace {

void AddPlacementFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option("--local-prefill-tokens", flags->local_prefill_tokens,
                  "prompts up to this long are prefilled by the decode worker")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--local-uncached-tokens", flags->local_uncached_tokens,
                  "so are those of which it does not hold up to so many tokens, where that is "
                  "faster")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--prefix-index-entries", flags->prefix_index_entries,
                  "most cached KV blocks that are known, counted at each worker, about 30 bytes "
                  "each; 0: workers are not asked what they hold")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32))
      ->capture_default_str();
}

}  // namespace

void AddRouterFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option("--http", flags->http,
                  "OpenAI API, /metrics, /health, /ready; port 0: a free one")
      ->capture_default_str();
  app->add_option("--grpc", flags->grpc, "baton.v1, health, reflection; port 0: a free one")
      ->capture_default_str();
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
  app->add_option("--cors-origin", flags->cors_origin,
                  "web pages of this origin (https://example.org; *: any) may use the HTTP API");
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
  app->add_option("--drain-delay", flags->drain_delay_s,
                  "how long /ready says 503 at shutdown while requests are still taken, so that "
                  "load balancers learn of it, seconds")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  app->add_option("--drain-timeout", flags->drain_timeout_s,
                  "how long running requests may take to end at shutdown, seconds")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app->add_option("--tls-cert", flags->tls.certificate,
                  "PEM certificate of HTTP, gRPC and the admin API, with its chain; read again "
                  "when it changes");
  app->add_option("--tls-key", flags->tls.key, "its private key");
  app->add_option("--tls-client-ca", flags->tls.ca,
                  "PEM CA: only clients with a certificate from it are served");
  AddPlacementFlags(app, flags);
  app->add_flag("--insecure", flags->insecure, "allow addresses other than loopback, unencrypted");
  AddAdminFlags(app, flags);
  AddTelemetryFlags(app, flags);
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
      fmt::format("--local-uncached-tokens={}", flags.local_uncached_tokens),
      fmt::format("--prefix-index-entries={}", flags.prefix_index_entries),
      fmt::format("--stall-timeout={}", flags.stall_timeout_s),
      fmt::format("--max-migrations={}", flags.max_migrations),
      fmt::format("--retry-share={}", flags.retry_share),
      fmt::format("--drain-delay={}", flags.drain_delay_s),
      fmt::format("--drain-timeout={}", flags.drain_timeout_s),
      fmt::format("--trace-ratio={}", flags.trace_ratio),
      fmt::format("--insecure={}", flags.insecure)};
  for (const auto& [flag, path] :
       {std::pair("--tls-cert=", &flags.tls.certificate), std::pair("--tls-key=", &flags.tls.key),
        std::pair("--tls-client-ca=", &flags.tls.ca), std::pair("--link-name=", &flags.link_name),
        std::pair("--keys-file=", &flags.keys_file), std::pair("--admin=", &flags.admin),
        std::pair("--admin-keys-file=", &flags.admin_keys_file),
        std::pair("--admin-tls-cert=", &flags.admin_tls.certificate),
        std::pair("--admin-tls-key=", &flags.admin_tls.key),
        std::pair("--admin-tls-client-ca=", &flags.admin_tls.ca),
        std::pair("--access-log=", &flags.access_log),
        std::pair("--otlp-endpoint=", &flags.otlp_endpoint),
        std::pair("--otlp-ca=", &flags.otlp_ca),
        std::pair("--served-model-name=", &flags.model_name)}) {
    if (!path->empty()) arguments.push_back(flag + *path);
  }
  for (std::string& argument : LinkArguments(flags.link_tls)) {
    arguments.push_back(std::move(argument));
  }
  for (std::string& argument : ControlArguments(flags.control)) {
    arguments.push_back(std::move(argument));
  }
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

absl::Status CheckAdmin(const RouterFlags& flags) {
  BATON_RETURN_IF_ERROR(CheckTlsFiles(flags.admin_tls, "--admin-tls"));
  if (flags.admin.empty()) {
    if (!flags.admin_tls.on() && flags.admin_keys_file.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "--admin-tls-cert and --admin-keys-file are of the admin API, which only --admin turns on");
  }
  BATON_RETURN_IF_ERROR(CheckAddress("--admin", flags.admin, flags.admin_tls.on() || flags.tls.on(),
                                     flags.insecure, "--admin-tls-cert and --admin-tls-key"));
  if (IsLoopback(flags.admin) || flags.insecure || !flags.admin_keys_file.empty() ||
      !flags.admin_tls.ca.empty()) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(fmt::format(
      "--admin {} is not a loopback address, and whoever can reach it could stop the cluster: give "
      "--admin-keys-file or --admin-tls-client-ca, or --insecure where the network is trusted",
      flags.admin));
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
  BATON_RETURN_IF_ERROR(CheckAdmin(flags));
  for (const std::string& worker : options.workers) {
    const std::string address = worker.substr(worker.starts_with("dns:") ? 4 : 0);
    BATON_RETURN_IF_ERROR(CheckAddress("--workers", address, flags.link_tls.on(), flags.insecure,
                                       "--link-cert, --link-key and --link-ca"));
  }
  options.link_security = {flags.link_tls, flags.link_name};
  options.only_safe_links = !flags.insecure;
  BATON_ASSIGN_OR_RETURN(options.control,
                         ControlOptionsOf(flags.control, options.etcd, options.router_name));
  RaiseFileLimit();
  options.model_name = flags.model_name;
  options.max_concurrent = flags.max_concurrent_requests;
  options.max_waiting = flags.max_waiting_requests;
  options.limits.max_input_tokens = flags.max_input_tokens;
  options.limits.max_total_tokens = flags.max_total_tokens;
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.worker_wait = std::chrono::seconds(flags.worker_wait_s);
  options.local_prefill_tokens = flags.local_prefill_tokens;
  options.local_uncached_tokens = flags.local_uncached_tokens;
  options.prefix_index_entries = static_cast<size_t>(flags.prefix_index_entries);
  options.stall_timeout = FromSeconds(flags.stall_timeout_s);
  options.max_migrations = flags.max_migrations;
  options.retry_share = flags.retry_share;
  std::unique_ptr<RouterNode> node(new RouterNode());
  node->drain_delay_ = std::chrono::seconds(flags.drain_delay_s);
  node->drain_timeout_ = std::chrono::seconds(flags.drain_timeout_s);
  router::TelemetryOptions telemetry{.access_log = flags.access_log,
                                     .trace_ratio = flags.trace_ratio};
  telemetry.otlp.endpoint = flags.otlp_endpoint;
  telemetry.otlp.ca = flags.otlp_ca;
  telemetry.otlp.router_name = options.router_name;
  BATON_ASSIGN_OR_RETURN(node->telemetry_, router::Telemetry::Create(telemetry));
  options.telemetry = node->telemetry_.get();
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
  http.telemetry = node->telemetry_.get();
  if (flags.cors_origin.find_first_of("\r\n, ") != std::string::npos) {
    return absl::InvalidArgumentError("--cors-origin is one origin, as https://example.org, or *");
  }
  http.cors_origin = flags.cors_origin;
  BATON_ASSIGN_OR_RETURN(node->http_, router::HttpServer::Create(http, node->dispatcher_.get()));
  router::GrpcOptions grpc;
  grpc.address = flags.grpc;
  grpc.limits = options.limits;
  grpc.tls = flags.tls;
  grpc.gate = node->gate_.get();
  grpc.telemetry = node->telemetry_.get();
  BATON_ASSIGN_OR_RETURN(node->grpc_, router::GrpcServer::Create(grpc, node->dispatcher_.get()));
  if (!flags.admin.empty()) BATON_RETURN_IF_ERROR(node->StartAdmin(flags));
  return node;
}

absl::Status RouterNode::StartAdmin(const RouterFlags& flags) {
  router::AdminOptions options;
  options.address = flags.admin;
  options.tls = flags.admin_tls.on() ? flags.admin_tls : flags.tls;
  options.backend = {.dispatcher = dispatcher_.get(),
                     .telemetry = telemetry_.get(),
                     .metrics = [http = http_.get()] { return http->MetricsText(); }};
  if (!flags.admin_keys_file.empty()) {
    BATON_ASSIGN_OR_RETURN(admin_gate_,
                           router::KeyGate::Create({.keys_file = flags.admin_keys_file}));
    options.backend.gate = admin_gate_.get();
  }
  BATON_ASSIGN_OR_RETURN(admin_, router::AdminServer::Create(options));
  return absl::OkStatus();
}

std::string RouterNode::Addresses() const {
  return fmt::format("http={} grpc={}{} model={}", http_->address(), grpc_->address(),
                     admin_ == nullptr ? "" : " admin=" + admin_->address(),
                     dispatcher_->Models().front().name);
}

void RouterNode::Drain() {
  dispatcher_->AnnounceDrain();
  http_->AnnounceEnd();
  if (drain_delay_ > Duration::zero()) {
    LogInfo(fmt::format("not ready any more; requests are taken for another {:.0f} s",
                        Seconds(drain_delay_)));
    WaitForSignal(drain_delay_);
  }
  LogInfo(fmt::format("draining: {} requests run", dispatcher_->running()));
  if (!dispatcher_->Drain(drain_timeout_)) {
    LogWarning(fmt::format("{} requests still run after {:.0f} s and are cut off",
                           dispatcher_->running(), Seconds(drain_timeout_)));
  }
  http_->EndConnections(kLastWords);
}

}  // namespace baton::cli
