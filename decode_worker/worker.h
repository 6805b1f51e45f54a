#pragma once

// A decode worker: takes requests from routers and their prompts' KV from prefill workers, and
// generates in a continuous batch.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "decode_worker/counters.h"
#include "worker_common/host.h"
#include "worker_link/commands.h"

namespace baton::decode_worker {

class DecodeLoop;

class DecodeWorker {
 public:
  // Loads the model and listens: routers may connect from now on. Errors as WorkerHost::Create.
  static absl::StatusOr<std::unique_ptr<DecodeWorker>> Create(
      const worker_common::WorkerOptions& options);
  // This part of a worker that may have both, one after the other. `host` outlives it.
  static std::unique_ptr<DecodeWorker> Over(worker_common::WorkerHost* host);
  ~DecodeWorker();  // not while Run runs

  std::string address() const;  // where routers dial
  const worker_link::WorkerInfo& info() const;

  // Works on the calling thread until drained; gives the role that the host is to have next, or
  // nothing when it is to end. Once.
  std::optional<worker_link::Role> Run();
  // Refuses new requests; Run returns when those accepted are over. Any thread; does not wait.
  void Drain();
  // Any thread.
  DecodeCounters counters() const;

 private:
  struct Parts;
  explicit DecodeWorker(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace baton::decode_worker
