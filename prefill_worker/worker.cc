#include "prefill_worker/worker.h"

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"
#include "engine/kv_probe.h"
#include "kv_disk/disk_tier.h"
#include "prefill_worker/loop.h"
#include "worker_common/host.h"

namespace baton::prefill_worker {

namespace {

// Null without a directory for it.
absl::StatusOr<std::unique_ptr<kv_disk::DiskTier>> OpenDisk(worker_common::WorkerHost* host) {
  const worker_common::WorkerOptions& options = host->options();
  if (options.disk_directory.empty()) return nullptr;
  if (!options.prefix_cache) {
    return absl::InvalidArgumentError("KV is kept on disk for the prefix cache, which is off");
  }
  BATON_ASSIGN_OR_RETURN(const uint64_t arithmetic, engine::ProbeKv(&host->executor()));
  const worker_link::WorkerInfo& info = host->info();
  return kv_disk::DiskTier::Create(
      {.directory = options.disk_directory,
       .name = options.name,
       .bytes = options.disk_bytes,
       .block_bytes = host->executor().pool().layout().block_bytes(),
       .identity =
           fmt::format("{} {} arithmetic={:016x}", info.fingerprint, info.kv_layout, arithmetic),
       .journal = &host->journal()},
      [host] { host->inputs().Wake(); });
}

}  // namespace

struct PrefillWorker::Parts {
  Parts(worker_common::WorkerHost* used, std::unique_ptr<kv_disk::DiskTier> opened)
      : host(used), disk(std::move(opened)), loop(host, disk.get()) {}
  std::unique_ptr<worker_common::WorkerHost> own_host;  // of Create; destroyed after the rest
  worker_common::WorkerHost* host;
  std::unique_ptr<kv_disk::DiskTier> disk;  // reads into the host's pool
  PrefillLoop loop;                         // its sequences hold blocks of the host's pool
};

absl::StatusOr<std::unique_ptr<PrefillWorker>> PrefillWorker::Create(
    const worker_common::WorkerOptions& options) {
  BATON_ASSIGN_OR_RETURN(auto host,
                         worker_common::WorkerHost::Create(options, worker_link::Role::kPrefill));
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<PrefillWorker> worker, Over(host.get()));
  worker->parts_->own_host = std::move(host);
  return worker;
}

absl::StatusOr<std::unique_ptr<PrefillWorker>> PrefillWorker::Over(
    worker_common::WorkerHost* host) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<kv_disk::DiskTier> disk, OpenDisk(host));
  return std::unique_ptr<PrefillWorker>(
      new PrefillWorker(std::make_unique<Parts>(host, std::move(disk))));
}

PrefillWorker::PrefillWorker(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
PrefillWorker::~PrefillWorker() = default;

std::string PrefillWorker::address() const { return parts_->host->server().address(); }
const worker_link::WorkerInfo& PrefillWorker::info() const { return parts_->host->info(); }
std::optional<worker_link::Role> PrefillWorker::Run() { return parts_->loop.Run(); }
void PrefillWorker::Drain() { parts_->loop.Drain(); }
PrefillCounters PrefillWorker::counters() const { return parts_->loop.counters(); }

}  // namespace baton::prefill_worker
