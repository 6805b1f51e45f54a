#include "decode_worker/worker.h"

#include <utility>

#include "common/status_macros.h"
#include "decode_worker/loop.h"
#include "worker_common/host.h"

namespace baton::decode_worker {

struct DecodeWorker::Parts {
  explicit Parts(std::unique_ptr<worker_common::WorkerHost> made)
      : host(std::move(made)), loop(host.get()) {}
  std::unique_ptr<worker_common::WorkerHost> host;
  DecodeLoop loop;  // its sequences hold blocks of the host's pool
};

absl::StatusOr<std::unique_ptr<DecodeWorker>> DecodeWorker::Create(
    const worker_common::WorkerOptions& options) {
  BATON_ASSIGN_OR_RETURN(auto host,
                         worker_common::WorkerHost::Create(options, worker_link::Role::kDecode));
  return std::unique_ptr<DecodeWorker>(new DecodeWorker(std::make_unique<Parts>(std::move(host))));
}

DecodeWorker::DecodeWorker(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
DecodeWorker::~DecodeWorker() = default;

std::string DecodeWorker::address() const { return parts_->host->server().address(); }
const worker_link::WorkerInfo& DecodeWorker::info() const { return parts_->host->info(); }
void DecodeWorker::Run() { parts_->loop.Run(); }
void DecodeWorker::Drain() { parts_->loop.Drain(); }
DecodeCounters DecodeWorker::counters() const { return parts_->loop.counters(); }

}  // namespace baton::decode_worker
