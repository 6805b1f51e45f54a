#include "decode_worker/worker.h"

#include <utility>

#include "common/status_macros.h"
#include "decode_worker/loop.h"
#include "worker_common/host.h"

namespace baton::decode_worker {

struct DecodeWorker::Parts {
  Parts(std::unique_ptr<worker_common::WorkerHost> own, worker_common::WorkerHost* used)
      : own_host(std::move(own)), host(used), loop(host) {}
  std::unique_ptr<worker_common::WorkerHost> own_host;  // of Create
  worker_common::WorkerHost* host;
  DecodeLoop loop;  // its sequences hold blocks of the host's pool
};

absl::StatusOr<std::unique_ptr<DecodeWorker>> DecodeWorker::Create(
    const worker_common::WorkerOptions& options) {
  BATON_ASSIGN_OR_RETURN(auto host,
                         worker_common::WorkerHost::Create(options, worker_link::Role::kDecode));
  worker_common::WorkerHost* const used = host.get();
  return std::unique_ptr<DecodeWorker>(
      new DecodeWorker(std::make_unique<Parts>(std::move(host), used)));
}

std::unique_ptr<DecodeWorker> DecodeWorker::Over(worker_common::WorkerHost* host) {
  return std::unique_ptr<DecodeWorker>(new DecodeWorker(std::make_unique<Parts>(nullptr, host)));
}

DecodeWorker::DecodeWorker(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
DecodeWorker::~DecodeWorker() = default;

std::string DecodeWorker::address() const { return parts_->host->server().address(); }
const worker_link::WorkerInfo& DecodeWorker::info() const { return parts_->host->info(); }
std::optional<worker_link::Role> DecodeWorker::Run() { return parts_->loop.Run(); }
void DecodeWorker::Drain() { parts_->loop.Drain(); }
DecodeCounters DecodeWorker::counters() const { return parts_->loop.counters(); }

}  // namespace baton::decode_worker
