#pragma once

// A prefill worker: takes prompts from routers, computes their KV and first token, and hands both
// to decode workers.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "prefill_worker/counters.h"
#include "worker_common/host.h"
#include "worker_link/commands.h"

namespace baton::prefill_worker {

class PrefillLoop;

class PrefillWorker {
 public:
  // Loads the model and listens: routers may connect from now on. Errors as WorkerHost::Create.
  static absl::StatusOr<std::unique_ptr<PrefillWorker>> Create(
      const worker_common::WorkerOptions& options);
  // This part of a worker that may have both, one after the other; opens the disk cache, if there
  // is to be one. `host` outlives it.
  static absl::StatusOr<std::unique_ptr<PrefillWorker>> Over(worker_common::WorkerHost* host);
  ~PrefillWorker();  // not while Run runs

  std::string address() const;  // where routers dial
  const worker_link::WorkerInfo& info() const;

  // Works on the calling thread until drained; gives the role that the host is to have next, or
  // nothing when it is to end. Once.
  std::optional<worker_link::Role> Run();
  // Refuses new prompts; Run returns when those accepted are over. Any thread; does not wait.
  void Drain();
  // Any thread.
  PrefillCounters counters() const;

 private:
  struct Parts;
  explicit PrefillWorker(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace baton::prefill_worker
