// A worker's status to and from its wire form.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/status_macros.h"
#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

absl::Status CheckRate(const char* field, double value) {
  if (value >= 0 && std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must be finite and not negative", field, value));
}

// A day is beyond all use.
Duration StepFromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::min(seconds, 86400.0)));
}

void CountersToWire(const KvCounters& counters, v1::WireKvCounters* wire) {
  wire->set_handoffs(counters.handoffs);
  wire->set_handoffs_failed(counters.handoffs_failed);
  wire->set_handoffs_converted(counters.handoffs_converted);
  wire->set_checksum_mismatches(counters.checksum_mismatches);
  wire->set_prefixes_fetched(counters.prefixes_fetched);
  wire->set_prefixes_not_offered(counters.prefixes_not_offered);
  wire->set_prefixes_refused(counters.prefixes_refused);
  wire->set_prefixes_failed(counters.prefixes_failed);
  wire->set_prefix_tokens_fetched(counters.prefix_tokens_fetched);
  wire->set_prefix_bytes_fetched(counters.prefix_bytes_fetched);
}

absl::StatusOr<KvCounters> CountersFromWire(const v1::WireKvCounters& wire) {
  BATON_RETURN_IF_ERROR(CheckCount("handoffs", wire.handoffs()));
  BATON_RETURN_IF_ERROR(CheckCount("handoffs_failed", wire.handoffs_failed()));
  BATON_RETURN_IF_ERROR(CheckCount("handoffs_converted", wire.handoffs_converted()));
  BATON_RETURN_IF_ERROR(CheckCount("checksum_mismatches", wire.checksum_mismatches()));
  BATON_RETURN_IF_ERROR(CheckCount("prefixes_fetched", wire.prefixes_fetched()));
  BATON_RETURN_IF_ERROR(CheckCount("prefixes_not_offered", wire.prefixes_not_offered()));
  BATON_RETURN_IF_ERROR(CheckCount("prefixes_refused", wire.prefixes_refused()));
  BATON_RETURN_IF_ERROR(CheckCount("prefixes_failed", wire.prefixes_failed()));
  BATON_RETURN_IF_ERROR(CheckCount("prefix_tokens_fetched", wire.prefix_tokens_fetched()));
  BATON_RETURN_IF_ERROR(CheckCount("prefix_bytes_fetched", wire.prefix_bytes_fetched()));
  return KvCounters{.handoffs = wire.handoffs(),
                    .handoffs_failed = wire.handoffs_failed(),
                    .handoffs_converted = wire.handoffs_converted(),
                    .checksum_mismatches = wire.checksum_mismatches(),
                    .prefixes_fetched = wire.prefixes_fetched(),
                    .prefixes_not_offered = wire.prefixes_not_offered(),
                    .prefixes_refused = wire.prefixes_refused(),
                    .prefixes_failed = wire.prefixes_failed(),
                    .prefix_tokens_fetched = wire.prefix_tokens_fetched(),
                    .prefix_bytes_fetched = wire.prefix_bytes_fetched()};
}

void PathToWire(const KvPath& path, v1::WireKvPath* wire) {
  wire->set_source(path.source);
  wire->set_transport(path.transport);
  wire->set_bytes_per_s(path.bytes_per_s);
  wire->set_expected_bytes_per_s(path.expected_bytes_per_s);
  wire->set_in_use(path.in_use);
}

absl::StatusOr<KvPath> PathFromWire(const v1::WireKvPath& wire) {
  BATON_RETURN_IF_ERROR(CheckLength("source", wire.source().size(), kMaxNameBytes, "bytes"));
  BATON_RETURN_IF_ERROR(CheckLength("transport", wire.transport().size(), kMaxNameBytes, "bytes"));
  BATON_RETURN_IF_ERROR(CheckRate("bytes_per_s", wire.bytes_per_s()));
  BATON_RETURN_IF_ERROR(CheckRate("expected_bytes_per_s", wire.expected_bytes_per_s()));
  return KvPath{.source = wire.source(),
                .transport = wire.transport(),
                .bytes_per_s = wire.bytes_per_s(),
                .expected_bytes_per_s = wire.expected_bytes_per_s(),
                .in_use = wire.in_use()};
}

void DiskToWire(const DiskCacheStatus& disk, v1::WireDiskCache* wire) {
  wire->set_on(disk.on);
  wire->set_blocks(disk.blocks);
  wire->set_blocks_total(disk.blocks_total);
  wire->set_blocks_hit(disk.blocks_hit);
  wire->set_blocks_missed(disk.blocks_missed);
  wire->set_blocks_read(disk.blocks_read);
  wire->set_blocks_written(disk.blocks_written);
  wire->set_blocks_dropped(disk.blocks_dropped);
  wire->set_blocks_evicted(disk.blocks_evicted);
  wire->set_blocks_damaged(disk.blocks_damaged);
  wire->set_bytes_per_s(disk.bytes_per_s);
}

absl::StatusOr<DiskCacheStatus> DiskFromWire(const v1::WireDiskCache& wire) {
  const DiskCacheStatus disk{.on = wire.on(),
                             .blocks = wire.blocks(),
                             .blocks_total = wire.blocks_total(),
                             .blocks_hit = wire.blocks_hit(),
                             .blocks_missed = wire.blocks_missed(),
                             .blocks_read = wire.blocks_read(),
                             .blocks_written = wire.blocks_written(),
                             .blocks_dropped = wire.blocks_dropped(),
                             .blocks_evicted = wire.blocks_evicted(),
                             .blocks_damaged = wire.blocks_damaged(),
                             .bytes_per_s = wire.bytes_per_s()};
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks", disk.blocks));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_total", disk.blocks_total));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_hit", disk.blocks_hit));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_missed", disk.blocks_missed));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_read", disk.blocks_read));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_written", disk.blocks_written));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_dropped", disk.blocks_dropped));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_evicted", disk.blocks_evicted));
  BATON_RETURN_IF_ERROR(CheckCount("disk.blocks_damaged", disk.blocks_damaged));
  BATON_RETURN_IF_ERROR(CheckRate("disk.bytes_per_s", disk.bytes_per_s));
  return disk;
}

void StepsToWire(const StepTotals& steps, v1::WireStepTotals* wire) {
  wire->set_steps(steps.steps);
  wire->set_prompt_steps(steps.prompt_steps);
  wire->set_seconds(steps.seconds);
  wire->set_prompt_tokens(steps.prompt_tokens);
  wire->set_prompt_pairs(steps.prompt_pairs);
  wire->set_sequences(steps.sequences);
  wire->set_context_tokens(steps.context_tokens);
  wire->set_chunk_tokens(steps.chunk_tokens);
}

absl::StatusOr<StepTotals> StepsFromWire(const v1::WireStepTotals& wire) {
  BATON_RETURN_IF_ERROR(CheckCount("steps.steps", wire.steps()));
  BATON_RETURN_IF_ERROR(CheckRate("steps.seconds", wire.seconds()));
  BATON_RETURN_IF_ERROR(CheckCount("steps.prompt_tokens", wire.prompt_tokens()));
  BATON_RETURN_IF_ERROR(CheckRate("steps.prompt_pairs", wire.prompt_pairs()));
  BATON_RETURN_IF_ERROR(CheckCount("steps.sequences", wire.sequences()));
  BATON_RETURN_IF_ERROR(CheckRate("steps.context_tokens", wire.context_tokens()));
  BATON_RETURN_IF_ERROR(CheckCount("steps.chunk_tokens", wire.chunk_tokens()));
  BATON_RETURN_IF_ERROR(CheckCount("steps.prompt_steps", wire.prompt_steps()));
  return StepTotals{.steps = wire.steps(),
                    .prompt_steps = wire.prompt_steps(),
                    .seconds = wire.seconds(),
                    .prompt_tokens = wire.prompt_tokens(),
                    .prompt_pairs = wire.prompt_pairs(),
                    .sequences = wire.sequences(),
                    .context_tokens = wire.context_tokens(),
                    .chunk_tokens = wire.chunk_tokens()};
}

}  // namespace

void ToWire(const WorkerStatus& status, v1::WireStatus* wire) {
  if (status.role) wire->set_role(std::string(RoleName(*status.role)));
  wire->set_draining(status.draining);
  wire->set_leaving(status.leaving);
  wire->set_longest_step_s(Seconds(status.longest_step));
  wire->set_running(status.running);
  wire->set_waiting(status.waiting);
  wire->set_blocks_free(status.blocks_free);
  wire->set_blocks_held(status.blocks_held);
  wire->set_blocks_cached(status.blocks_cached);
  wire->set_blocks_total(status.blocks_total);
  wire->set_transfers(status.transfers);
  wire->set_prompt_tokens_queued(status.prompt_tokens_queued);
  wire->set_prefill_tokens_per_s(status.prefill_tokens_per_s);
  wire->set_kv_bytes_per_s(status.kv_bytes_per_s);
  wire->set_preemptions(status.preemptions);
  CountersToWire(status.kv, wire->mutable_kv());
  for (const KvPath& path : status.paths) PathToWire(path, wire->add_paths());
  if (status.disk != DiskCacheStatus{}) DiskToWire(status.disk, wire->mutable_disk());
  if (status.steps != StepTotals{}) StepsToWire(status.steps, wire->mutable_steps());
}

absl::StatusOr<WorkerStatus> FromWire(const v1::WireStatus& wire) {
  BATON_RETURN_IF_ERROR(CheckRate("longest_step_s", wire.longest_step_s()));
  BATON_RETURN_IF_ERROR(CheckCount("running", wire.running()));
  BATON_RETURN_IF_ERROR(CheckCount("waiting", wire.waiting()));
  BATON_RETURN_IF_ERROR(CheckCount("blocks_free", wire.blocks_free()));
  BATON_RETURN_IF_ERROR(CheckCount("blocks_held", wire.blocks_held()));
  BATON_RETURN_IF_ERROR(CheckCount("blocks_cached", wire.blocks_cached()));
  BATON_RETURN_IF_ERROR(CheckCount("blocks_total", wire.blocks_total()));
  BATON_RETURN_IF_ERROR(CheckCount("transfers", wire.transfers()));
  BATON_RETURN_IF_ERROR(CheckCount("prompt_tokens_queued", wire.prompt_tokens_queued()));
  BATON_RETURN_IF_ERROR(CheckRate("prefill_tokens_per_s", wire.prefill_tokens_per_s()));
  BATON_RETURN_IF_ERROR(CheckRate("kv_bytes_per_s", wire.kv_bytes_per_s()));
  BATON_RETURN_IF_ERROR(CheckCount("preemptions", wire.preemptions()));
  if (wire.paths_size() > static_cast<int>(kMaxKvPaths)) {
    return absl::InvalidArgumentError(fmt::format("a status with {} paths, at most {} are taken",
                                                  wire.paths_size(), kMaxKvPaths));
  }
  std::vector<KvPath> paths;
  for (const v1::WireKvPath& path : wire.paths()) {
    BATON_ASSIGN_OR_RETURN(paths.emplace_back(), PathFromWire(path));
  }
  BATON_ASSIGN_OR_RETURN(const KvCounters counters, CountersFromWire(wire.kv()));
  BATON_ASSIGN_OR_RETURN(const DiskCacheStatus disk, DiskFromWire(wire.disk()));
  BATON_ASSIGN_OR_RETURN(const StepTotals steps, StepsFromWire(wire.steps()));
  std::optional<Role> role;
  if (!wire.role().empty()) {
    BATON_ASSIGN_OR_RETURN(role, RoleFromName(wire.role()));
  }
  return WorkerStatus{.role = role,
                      .draining = wire.draining(),
                      .leaving = wire.leaving(),
                      .longest_step = StepFromSeconds(wire.longest_step_s()),
                      .running = wire.running(),
                      .waiting = wire.waiting(),
                      .blocks_free = wire.blocks_free(),
                      .blocks_held = wire.blocks_held(),
                      .blocks_cached = wire.blocks_cached(),
                      .blocks_total = wire.blocks_total(),
                      .transfers = wire.transfers(),
                      .prompt_tokens_queued = wire.prompt_tokens_queued(),
                      .prefill_tokens_per_s = wire.prefill_tokens_per_s(),
                      .kv_bytes_per_s = wire.kv_bytes_per_s(),
                      .preemptions = wire.preemptions(),
                      .kv = counters,
                      .paths = std::move(paths),
                      .disk = disk,
                      .steps = steps};
}

}  // namespace baton::worker_link
