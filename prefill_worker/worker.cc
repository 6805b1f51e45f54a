#include "prefill_worker/worker.h"

#include <utility>

#include "common/status_macros.h"
#include "prefill_worker/loop.h"
#include "worker_common/host.h"

namespace baton::prefill_worker {

struct PrefillWorker::Parts {
  explicit Parts(std::unique_ptr<worker_common::WorkerHost> made)
      : host(std::move(made)), loop(host.get()) {}
  std::unique_ptr<worker_common::WorkerHost> host;
  PrefillLoop loop;  // its sequences hold blocks of the host's pool
};

absl::StatusOr<std::unique_ptr<PrefillWorker>> PrefillWorker::Create(
    const worker_common::WorkerOptions& options) {
  BATON_ASSIGN_OR_RETURN(auto host,
                         worker_common::WorkerHost::Create(options, worker_link::Role::kPrefill));
  return std::unique_ptr<PrefillWorker>(
      new PrefillWorker(std::make_unique<Parts>(std::move(host))));
}

PrefillWorker::PrefillWorker(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
PrefillWorker::~PrefillWorker() = default;

std::string PrefillWorker::address() const { return parts_->host->server().address(); }
const worker_link::WorkerInfo& PrefillWorker::info() const { return parts_->host->info(); }
void PrefillWorker::Run() { parts_->loop.Run(); }
void PrefillWorker::Drain() { parts_->loop.Drain(); }
PrefillCounters PrefillWorker::counters() const { return parts_->loop.counters(); }

}  // namespace baton::prefill_worker
