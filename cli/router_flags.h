#pragma once

// The router's flags, and a router with its front ends in this process: for `router`, and for `up
// --transport inproc`.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/control_flags.h"
#include "common/clock.h"
#include "common/tls_files.h"
#include "router/admin_server.h"
#include "router/dispatcher.h"
#include "router/grpc_server.h"
#include "router/http_server.h"
#include "router/key_gate.h"
#include "router/telemetry.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct RouterFlags {
  std::string http = "127.0.0.1:8000";
  std::string grpc = "127.0.0.1:8001";
  std::string admin;   // "": none
  TlsFiles admin_tls;  // off: as `tls`
  std::string admin_keys_file;
  std::string model_name;
  int32_t max_concurrent_requests = 4096;
  int32_t max_waiting_requests = 0;
  int32_t max_input_tokens = 0;
  int32_t max_total_tokens = 0;
  std::string keys_file;
  bool metrics_need_key = false;
  std::string cors_origin;
  int32_t max_connections = 8192;
  int32_t http_threads = 1;
  int32_t request_timeout_s = 600;
  int32_t worker_wait_s = 5;
  int32_t local_prefill_tokens = 0;
  int32_t local_uncached_tokens = 256;
  int64_t prefix_index_entries = int64_t{1} << 24;
  double stall_timeout_s = 5;
  int32_t max_migrations = 3;
  double retry_share = 1;
  int32_t drain_delay_s = 0;
  int32_t drain_timeout_s = 60;
  TlsFiles tls;       // of the front ends
  TlsFiles link_tls;  // of the links to the workers
  std::string link_name;
  bool insecure = false;
  std::string access_log;  // file, or "-"; "": none
  std::string otlp_endpoint;
  std::string otlp_ca;
  double trace_ratio = 1;
  ControlFlags control;
};

void AddRouterFlags(CLI::App* app, RouterFlags* flags);

// The same flags as arguments for a child process.
std::vector<std::string> ToArguments(const RouterFlags& flags);

// The three flags of the links between routers and workers: both ends have them.
void AddLinkFlags(CLI::App* app, TlsFiles* tls);
std::vector<std::string> LinkArguments(const TlsFiles& tls);
// All three or none, and sound.
absl::Status CheckLinkTls(const TlsFiles& tls);

// PermissionDenied when `address`, the value of `flag`, is not a loopback address, and neither TLS
// nor --insecure is given; `tls_flags` names what would give TLS.
absl::Status CheckAddress(const char* flag, const std::string& address, bool tls, bool insecure,
                          const char* tls_flags);

// InvalidArgument, or PermissionDenied, for an admin API that is not as safe as it should be: off
// loopback it needs TLS, and keys or client certificates of its own.
absl::Status CheckAdmin(const RouterFlags& flags);

class RouterNode {
 public:
  static absl::StatusOr<std::unique_ptr<RouterNode>> Start(const RouterFlags& flags,
                                                           router::DispatcherOptions options);

  // "http=127.0.0.1:8000 grpc=127.0.0.1:8001 admin=127.0.0.1:8002 model=NAME"; admin only if on
  std::string Addresses() const;
  // After SIGHUP: the access log may have been moved away.
  void ReopenLogs() { telemetry_->ReopenAccessLog(); }
  // Says that it is not ready, and after the drain delay, or another signal, takes no new requests;
  // waits for the running ones up to the drain timeout.
  void Drain();

 private:
  RouterNode() = default;

  absl::Status StartAdmin(const RouterFlags& flags);

  Duration drain_delay_{};
  Duration drain_timeout_{};
  std::unique_ptr<router::Telemetry> telemetry_;
  std::unique_ptr<router::KeyGate> gate_;
  std::unique_ptr<router::KeyGate> admin_gate_;
  std::unique_ptr<router::Dispatcher> dispatcher_;
  std::unique_ptr<router::HttpServer> http_;
  std::unique_ptr<router::GrpcServer> grpc_;
  std::unique_ptr<router::AdminServer> admin_;
};

}  // namespace baton::cli
