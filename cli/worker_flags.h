#pragma once

// A worker's flags, and a worker in this process: for `worker`, and for `up --transport inproc`.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/engine_flags.h"
#include "common/tls_files.h"
#include "discovery/registration.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct WorkerFlags {
  EngineFlags engine;
  std::string transport = "auto";
  std::string ucx_tls;
  int32_t gpu = 0;
  std::string transport_faults;
  std::string served_model_name;
  TlsFiles link_tls;
  int32_t max_sequences = 64;
  int32_t queue_capacity = 1024;
  std::string kv_disk;
  double kv_disk_gb = 10;
  double kv_lease_s = 5;
  double kv_offer_timeout_s = 30;
  double kv_ready_timeout_s = 10;
  double kv_offer_wait_s = 120;
  double drain_grace_s = 15;
  discovery::RegistrationOptions registration;  // without etcd's address: none
  std::string advertise;                        // "": the listened address
};

// The flags that every worker of a cluster shares; name, role and address are the commands' own.
void AddWorkerFlags(CLI::App* app, WorkerFlags* flags);

// The same flags as arguments for a child process.
std::vector<std::string> ToArguments(const WorkerFlags& flags);

// One worker with its device thread. Routers may change its role.
class WorkerNode {
 public:
  // `role` is "prefill" or "decode". Loads the model (which takes a while), listens, and serves
  // until Drain.
  static absl::StatusOr<std::unique_ptr<WorkerNode>> Start(const std::string& role,
                                                           const std::string& name,
                                                           const std::string& listen,
                                                           const WorkerFlags& flags);
  virtual ~WorkerNode() = default;
  virtual std::string address() const = 0;
  // No new requests; returns when the running ones and their transfers have ended.
  virtual void Drain() = 0;
};

}  // namespace baton::cli
