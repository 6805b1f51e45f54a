#include "cli/router_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "common/logging.h"
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
  app->add_option("--max-concurrent", flags->max_concurrent, "most requests at a time; 429 above")
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
  app->add_flag("--insecure", flags->insecure, "allow addresses other than loopback, unencrypted");
}

std::vector<std::string> ToArguments(const RouterFlags& flags) {
  std::vector<std::string> arguments = {
      "--http=" + flags.http,
      "--grpc=" + flags.grpc,
      fmt::format("--max-concurrent={}", flags.max_concurrent),
      fmt::format("--http-threads={}", flags.http_threads),
      fmt::format("--request-timeout={}", flags.request_timeout_s),
      fmt::format("--worker-wait={}", flags.worker_wait_s),
      fmt::format("--local-prefill-tokens={}", flags.local_prefill_tokens),
      fmt::format("--stall-timeout={}", flags.stall_timeout_s),
      fmt::format("--max-migrations={}", flags.max_migrations),
      fmt::format("--retry-share={}", flags.retry_share),
      fmt::format("--drain-timeout={}", flags.drain_timeout_s),
      fmt::format("--insecure={}", flags.insecure)};
  if (!flags.admin.empty()) arguments.push_back("--admin=" + flags.admin);
  if (!flags.model_name.empty()) arguments.push_back("--served-model-name=" + flags.model_name);
  return arguments;
}

absl::Status CheckLoopback(const std::string& address, bool insecure) {
  const bool loopback = address.starts_with("127.") || address.starts_with("[::1]:") ||
                        address.starts_with("localhost:");
  if (loopback || insecure) return absl::OkStatus();
  return absl::PermissionDeniedError(fmt::format(
      "{} is not a loopback address; connections are not encrypted, so this needs --insecure",
      address));
}

absl::StatusOr<std::unique_ptr<RouterNode>> RouterNode::Start(const RouterFlags& flags,
                                                              router::DispatcherOptions options) {
  BATON_RETURN_IF_ERROR(CheckLoopback(flags.http, flags.insecure));
  BATON_RETURN_IF_ERROR(CheckLoopback(flags.grpc, flags.insecure));
  if (!flags.admin.empty()) BATON_RETURN_IF_ERROR(CheckLoopback(flags.admin, flags.insecure));
  options.model_name = flags.model_name;
  options.max_concurrent = flags.max_concurrent;
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.worker_wait = std::chrono::seconds(flags.worker_wait_s);
  options.local_prefill_tokens = flags.local_prefill_tokens;
  options.stall_timeout =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(flags.stall_timeout_s));
  options.max_migrations = flags.max_migrations;
  options.retry_share = flags.retry_share;
  std::unique_ptr<RouterNode> node(new RouterNode());
  node->drain_timeout_ = std::chrono::seconds(flags.drain_timeout_s);
  BATON_ASSIGN_OR_RETURN(node->dispatcher_, router::Dispatcher::Create(options));
  router::HttpOptions http;
  http.address = flags.http;
  http.threads = flags.http_threads;
  http.limits = options.limits;
  BATON_ASSIGN_OR_RETURN(node->http_, router::HttpServer::Create(http, node->dispatcher_.get()));
  router::GrpcOptions grpc;
  grpc.address = flags.grpc;
  grpc.limits = options.limits;
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
