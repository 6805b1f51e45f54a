#pragma once

// What both kinds of worker are told at their start.

#include <cstdint>
#include <optional>
#include <string>

#include "common/clock.h"
#include "common/tls_files.h"
#include "kernels/ops.h"
#include "kv_transfer/handoff.h"

namespace baton::worker_common {

struct WorkerOptions {
  std::string name = "worker";
  std::string listen_address = "127.0.0.1:0";  // port 0 takes a free one
  TlsFiles link_tls;                           // of what routers dial; off: unencrypted
  std::string model_path;                      // a GGUF file
  std::string served_model;                    // what clients call it; "": the file's own name

  bool cuda = false;    // computes on the GPU `gpu` instead of the CPU
  int32_t threads = 0;  // 0: the CPUs that the process may use
  bool pin_threads = false;
  kernels::CpuIsa isa = kernels::CpuIsa::kAuto;
  int32_t max_context = 0;  // 0: the model's

  kernels::KvDType kv_dtype = kernels::KvDType::kF16;
  int32_t block_tokens = 16;
  int64_t kv_bytes = 0;  // of the pool; 0: 1 GiB, or one context where that is more
  bool prefix_cache = true;
  // Of a prefill worker: full KV blocks are kept in a file of this directory too, of disk_bytes at
  // most; "" keeps none.
  std::string disk_directory;
  int64_t disk_bytes = 0;

  int32_t chunk_tokens = 256;    // most prefill tokens of a step
  int32_t max_batch = 64;        // most sequences of a step
  size_t queue_capacity = 1024;  // most requests on the worker, waiting and running

  kv_transfer::TransportKind transport = kv_transfer::TransportKind::kAuto;
  std::string ucx_tls;                                           // "" chooses by `transport`
  int32_t gpu = 0;                                               // as in HandoffOptions
  Duration lease = std::chrono::seconds(5);                      // as in HandoffOptions
  Duration offer_timeout = std::chrono::seconds(30);             // likewise
  Duration ready_timeout = std::chrono::seconds(10);             // likewise
  std::optional<kv_transfer::TransportFaults> transport_faults;  // likewise
  // A decode worker that has no offer after this long prefills the prompt itself. Long, because
  // the prompt may only wait its turn: a dead prefill worker is found, and replaced, by the router.
  Duration offer_wait = std::chrono::minutes(2);
  // When the worker is told to end: how long its streams go on before routers move them elsewhere.
  Duration drain_grace = std::chrono::seconds(15);
};

}  // namespace baton::worker_common
