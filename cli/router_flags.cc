#include "cli/router_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "common/file_limit.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::cli {

void AddRouterFlags(CLI::App* app, RouterFlags* flags) {
  app->add_option("--http", flags->http,
                  "OpenAI API, /metrics, /health, /ready; port 0: a free one")
      ->capture_default_str();
  app->add_option("--grpc", flags->grpc, "baton.v1, health, reflection; port 0: a free one")
      ->capture_default_str();
  app->add_option("--served-model-name", flags->model_name,
                  "the model's name for clients; from the file when not given");
  app->add_option("--max-concurrent", flags->max_concurrent, "most requests at a time; 429 above")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
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
      fmt::format("--max-connections={}", flags.max_connections),
      fmt::format("--http-threads={}", flags.http_threads),
      fmt::format("--request-timeout={}", flags.request_timeout_s),
      fmt::format("--worker-wait={}", flags.worker_wait_s),
      fmt::format("--local-prefill-tokens={}", flags.local_prefill_tokens),
      fmt::format("--drain-timeout={}", flags.drain_timeout_s),
      fmt::format("--insecure={}", flags.insecure)};
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
  RaiseFileLimit();
  options.model_name = flags.model_name;
  options.max_concurrent = flags.max_concurrent;
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.worker_wait = std::chrono::seconds(flags.worker_wait_s);
  options.local_prefill_tokens = flags.local_prefill_tokens;
  std::unique_ptr<RouterNode> node(new RouterNode());
  node->drain_timeout_ = std::chrono::seconds(flags.drain_timeout_s);
  BATON_ASSIGN_OR_RETURN(node->dispatcher_, router::Dispatcher::Create(options));
  router::HttpOptions http;
  http.address = flags.http;
  http.threads = flags.http_threads;
  http.max_connections = flags.max_connections;
  http.limits = options.limits;
  BATON_ASSIGN_OR_RETURN(node->http_, router::HttpServer::Create(http, node->dispatcher_.get()));
  router::GrpcOptions grpc;
  grpc.address = flags.grpc;
  grpc.limits = options.limits;
  BATON_ASSIGN_OR_RETURN(node->grpc_, router::GrpcServer::Create(grpc, node->dispatcher_.get()));
  return node;
}

std::string RouterNode::Addresses() const {
  return fmt::format("http={} grpc={} model={}", http_->address(), grpc_->address(),
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
