#pragma once

// What a worker of either kind is made of: the model on its device, the handoff service whose slab
// the KV pool lies in, the server that routers dial, and the queue between them and the loop.

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/block_journal.h"
#include "common/clock.h"
#include "engine/local_engine.h"
#include "kv_transfer/handoff.h"
#include "worker_common/input_queue.h"
#include "worker_common/options.h"
#include "worker_link/server.h"

namespace baton::worker_common {

// What two workers must share to continue each other's KV: the model, and the instruction set that
// computes it. Each set rounds in its own way: KV of one, continued on another, would be neither's
// answer. FailedPrecondition when the machine lacks `wanted`.
absl::StatusOr<std::string> ArithmeticFingerprint(const engine::ModelConfig& config,
                                                  kernels::CpuIsa wanted);

// Once Create has returned, routers may connect; what they send waits in inputs().
class WorkerHost {
 public:
  // What it is to be, from now on.
  struct Duty {
    worker_link::Role role = worker_link::Role::kPrefill;
    bool takes_work = true;
    TimePoint leaving_at = TimePoint::max();  // while it drains: streams are to move then
  };

  // InvalidArgument for options without sense and models that are not supported, NotFound without a
  // model file, Unavailable when the address or transport cannot be had.
  static absl::StatusOr<std::unique_ptr<WorkerHost>> Create(const WorkerOptions& options,
                                                            worker_link::Role role);

  const WorkerOptions& options() const { return options_; }
  const worker_link::WorkerInfo& info() const { return info_; }
  engine::Executor& executor() { return engine_->executor(); }
  kv_transfer::HandoffService& handoff() { return *handoff_; }
  worker_link::LinkServer& server() { return *server_; }
  InputQueue& inputs() { return inputs_; }
  // What pool and disk hold, for routers.
  BlockJournal& journal() { return journal_; }
  // The device thread's, from loop to loop.
  Duty& duty() { return duty_; }
  // Tells routers, and whoever else listens.
  void Report(const worker_link::WorkerStatus& status) {
    server_->SetStatus(status);
    if (on_status_) on_status_(status);
  }
  // Before the first loop. Called on the device thread: it must not block.
  void OnStatus(std::function<void(const worker_link::WorkerStatus&)> on_status) {
    on_status_ = std::move(on_status);
  }

 private:
  explicit WorkerHost(const WorkerOptions& options)
      : options_(options), inputs_(options.queue_capacity) {}
  absl::Status LoadModel();
  absl::Status Serve(worker_link::Role role);

  // In the order of need: each part uses those above it.
  const WorkerOptions options_;
  worker_link::WorkerInfo info_;
  InputQueue inputs_;
  BlockJournal journal_;
  Duty duty_;
  std::function<void(const worker_link::WorkerStatus&)> on_status_;
  std::unique_ptr<kv_transfer::HandoffService> handoff_;
  std::unique_ptr<engine::LocalEngine> engine_;
  std::unique_ptr<worker_link::LinkServer> server_;
};

}  // namespace baton::worker_common
