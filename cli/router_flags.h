#pragma once

// The router's flags, and a router with its front ends in this process: for `router`, and for `up
// --transport inproc`.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "router/dispatcher.h"
#include "router/grpc_server.h"
#include "router/http_server.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct RouterFlags {
  std::string http = "127.0.0.1:8000";
  std::string grpc = "127.0.0.1:8001";
  std::string model_name;
  int32_t max_concurrent = 4096;
  int32_t max_connections = 8192;
  int32_t http_threads = 1;
  int32_t request_timeout_s = 600;
  int32_t worker_wait_s = 5;
  int32_t local_prefill_tokens = 0;
  int32_t drain_timeout_s = 60;
  bool insecure = false;
};

void AddRouterFlags(CLI::App* app, RouterFlags* flags);

// The same flags as arguments for a child process.
std::vector<std::string> ToArguments(const RouterFlags& flags);

// PermissionDenied when `address` is not a loopback address and `insecure` is not given: links are
// not encrypted in this version.
absl::Status CheckLoopback(const std::string& address, bool insecure);

class RouterNode {
 public:
  static absl::StatusOr<std::unique_ptr<RouterNode>> Start(const RouterFlags& flags,
                                                           router::DispatcherOptions options);

  // "http=127.0.0.1:8000 grpc=127.0.0.1:8001 model=NAME"
  std::string Addresses() const;
  // No new requests; waits for the running ones up to the drain timeout.
  void Drain();

 private:
  RouterNode() = default;

  Duration drain_timeout_{};
  std::unique_ptr<router::Dispatcher> dispatcher_;
  std::unique_ptr<router::HttpServer> http_;
  std::unique_ptr<router::GrpcServer> grpc_;
};

}  // namespace baton::cli
