// Registry's views of the fleet, and the accounting of what is open where.

#include <algorithm>
#include <climits>

#include "router/registry.h"

namespace baton::router {

using worker_link::Role;

// A status may be older than what was sent last, and counts other routers' requests too: the larger
// number of the two is nearer to the truth.
void Registry::Worker::FillSnapshot(WorkerSnapshot* into) const {
  WorkerSnapshot& snapshot = *into;
  snapshot.role = info.role;
  snapshot.fingerprint = info.fingerprint;
  snapshot.kv_layout = info.kv_layout;
  snapshot.connected = connected && has_status && !refused && !leaving;
  snapshot.draining = status.draining;
  snapshot.requests = std::max(status.running + status.waiting, open_requests);
  snapshot.prompt_tokens_queued = std::max(status.prompt_tokens_queued, open_prompt_tokens);
  snapshot.blocks_total = status.blocks_total;
  snapshot.blocks_available = std::min<int64_t>(int64_t{status.blocks_free} + status.blocks_cached,
                                                status.blocks_total - open_blocks);
  snapshot.block_tokens = info.block_tokens;
  snapshot.kv_bytes_per_token = info.kv_bytes_per_token;
  snapshot.prefill_tokens_per_s = status.prefill_tokens_per_s;
  snapshot.kv_bytes_per_s = status.kv_bytes_per_s;
}

void Registry::RefreshLocked(WorkerId id) {
  const auto at = std::ranges::lower_bound(snapshots_, id, {}, &WorkerSnapshot::id);
  const bool has = at != snapshots_.end() && at->id == id;
  const auto worker = workers_.find(id);
  if (worker == workers_.end()) {
    if (has) snapshots_.erase(at);
    return;
  }
  WorkerSnapshot& snapshot = has ? *at : *snapshots_.insert(at, WorkerSnapshot{.id = id});
  worker->second.FillSnapshot(&snapshot);
}

const char* Registry::Worker::StateName() const {
  if (connection == 0) return "connecting";
  if (!connected) return "lost";
  if (refused) return "refused";
  if (leaving || status.draining) return "draining";
  return has_status ? "ready" : "connecting";
}

std::variant<Registry::Assignment, Refusal> Registry::Assign(
    PlacementRequest request, std::span<const uint64_t> affinity_keys) {
  const std::lock_guard lock(mutex_);
  request.affinity = prefixes_.Find(affinity_keys);
  Placement placement = Place(snapshots_, request);
  if (auto* refusal = std::get_if<Refusal>(&placement)) return std::move(*refusal);
  const Placed& placed = std::get<Placed>(placement);
  prefixes_.Remember(affinity_keys, placed.prefill, placed.decode);
  Assignment assignment;
  assignment.decode = OpenLocked(placed.decode, request.prompt_tokens);
  const Worker& decode = workers_.at(placed.decode);
  assignment.decode_name = decode.info.name;
  if (placed.prefill) {
    const worker_link::WorkerInfo& prefill = workers_.at(*placed.prefill).info;
    assignment.prefill = {OpenLocked(*placed.prefill, request.prompt_tokens), prefill.name,
                          decode.info.handoff_address, prefill.handoff_address};
  }
  if (placed.donor) {
    assignment.donor = {*placed.donor, workers_.at(placed.donor->worker).info.name};
  }
  return assignment;
}

Share Registry::OpenLocked(WorkerId id, int32_t prompt_tokens) {
  Worker& worker = workers_.at(id);
  const Share share{id, worker.connection, prompt_tokens,
                    BlocksNeeded(worker.info.block_tokens, prompt_tokens)};
  ++worker.open_requests;
  worker.open_prompt_tokens += share.prompt_tokens;
  worker.open_blocks += share.blocks;
  RefreshLocked(id);
  return share;
}

void Registry::Release(const Share& share) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(share.worker);
  if (found == workers_.end() || found->second.connection != share.connection) return;
  Worker& worker = found->second;
  --worker.open_requests;
  worker.open_prompt_tokens -= share.prompt_tokens;
  worker.open_blocks -= share.blocks;
  RefreshLocked(share.worker);
}

std::vector<WorkerView> Registry::Fleet() const {
  const std::lock_guard lock(mutex_);
  std::vector<WorkerView> views;
  views.reserve(workers_.size());
  for (const auto& [id, worker] : workers_) {
    WorkerView view;
    view.address = worker.address;
    view.state = worker.StateName();
    if (worker.connection > 0) {
      view.name = worker.info.name;
      view.role = std::string(RoleName(worker.info.role));
    }
    if (worker.connected) {
      const worker_link::WorkerStatus& status = worker.status;
      view.running = status.running;
      view.waiting = status.waiting;
      view.blocks_free = status.blocks_free;
      view.blocks_held = status.blocks_held;
      view.blocks_cached = status.blocks_cached;
      view.blocks_total = status.blocks_total;
      view.transfers = status.transfers;
      view.disk = status.disk;
      view.kv = status.kv;
      view.paths = status.paths;
    }
    views.push_back(std::move(view));
  }
  return views;
}

bool Registry::Ready() const {
  const std::lock_guard lock(mutex_);
  return std::any_of(workers_.begin(), workers_.end(), [](const auto& entry) {
    return entry.second.info.role == Role::kDecode && entry.second.usable();
  });
}

int32_t Registry::MinContextTokens() const {
  const std::lock_guard lock(mutex_);
  return min_context_tokens_;
}

void Registry::CountContextLocked() {
  min_context_tokens_ = INT32_MAX;
  for (const auto& [id, worker] : workers_) {
    if (!worker.connected || worker.refused) continue;
    min_context_tokens_ = std::min(min_context_tokens_, worker.info.context_tokens);
  }
}

}  // namespace baton::router
