// Registry's views of the fleet, the accounting of what is open where, and who can be relied on.

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "common/logging.h"
#include "router/fleet_metrics.h"
#include "router/registry.h"
#include "router/room.h"

namespace baton::router {

using worker_link::Role;

// To an eighth of an octave: equal machines measure nearly equal speeds, and none of them is to get
// all prompts for that.
double RoundedSpeed(double tokens_per_s) {
  if (tokens_per_s <= 0) return 0;
  return std::exp2(std::round(8 * std::log2(tokens_per_s)) / 8);
}

// A status may be older than what was sent last, and counts other routers' requests too: the larger
// number of the two is nearer to the truth.
void Registry::Worker::FillSnapshot(WorkerSnapshot* into) const {
  WorkerSnapshot& snapshot = *into;
  snapshot.role = info.role;
  snapshot.fingerprint = fingerprint;
  snapshot.kv_layout = kv_layout;
  snapshot.connected = connected && has_status && !refused && !leaving;
  snapshot.draining = status.draining;
  snapshot.requests = std::max(status.running + status.waiting, open_requests);
  snapshot.prompt_tokens_queued =
      std::max(status.prompt_tokens_queued, open_prompt_tokens) + local_tokens_sent;
  snapshot.context_tokens =
      std::max<int64_t>(status.blocks_held, open_blocks) * std::max(info.block_tokens, 1);
  snapshot.slowness = pace.slowness();
  snapshot.max_sequences = info.max_sequences;
  snapshot.blocks_total = status.blocks_total;
  snapshot.blocks_available = std::min<int64_t>(int64_t{status.blocks_free} + status.blocks_cached,
                                                status.blocks_total - open_blocks);
  snapshot.block_tokens = info.block_tokens;
  snapshot.kv_bytes_per_token = info.kv_bytes_per_token;
  snapshot.prefill_tokens_per_s = RoundedSpeed(status.prefill_tokens_per_s);
  snapshot.kv_bytes_per_s = status.kv_bytes_per_s;
  snapshot.disk_bytes_per_s = status.disk.bytes_per_s;
  snapshot.chosen = chosen;
}

std::string Registry::MetricsText() const {
  return DiscoveryMetricsText(Discovery()) + prefixes_.MetricsText();
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
  snapshot.suspect = SuspectLocked(worker->second, SystemClock().Now());
}

const char* Registry::Worker::StateName() const {
  if (connection == 0) return "connecting";
  if (!connected) return "lost";
  if (refused) return "refused";
  const bool idle = status.running == 0 && status.waiting == 0 && status.transfers == 0;
  if (leaving || status.draining) return idle && open_requests == 0 ? "drained" : "draining";
  return has_status ? "ready" : "connecting";
}

void Registry::RefreshSuspectsLocked(TimePoint now) {
  if (now - suspects_of_ < kSuspectsLast) return;
  suspects_of_ = now;
  auto snapshot = snapshots_.begin();
  for (const auto& [id, worker] : workers_) (snapshot++)->suspect = SuspectLocked(worker, now);
}

std::vector<ChainKind> Registry::ChainKinds() const {
  const std::lock_guard lock(mutex_);
  return chain_kinds_;
}

std::variant<Registry::Assignment, Refusal> Registry::Assign(PlacementRequest request,
                                                             const PromptNames& prompt) {
  static thread_local HeldPrefixes held;
  held.Clear();
  if (options_.prefix_index_entries > 0) {
    for (const ChainKind& kind : ChainKinds()) {
      PromptChain chain(kind, prompt.cache_salt, prompt.tokens);
      prefixes_.Find(chain, &held);
    }
  }
  if (!held.empty()) request.held = held.all();
  const std::lock_guard lock(mutex_);
  const PromptsUnderWay::Found expected = under_way_.Find(prompt.keys);
  request.expected_at = expected.worker;
  request.expected_tokens = expected.tokens;
  if (prompt.session) request.session = sessions_.Find(*prompt.session);
  RefreshSuspectsLocked(SystemClock().Now());
  request.decode_step = decode_step_;
  Placement placement = Place(snapshots_, request);
  if (auto* refusal = std::get_if<Refusal>(&placement)) return std::move(*refusal);
  const Placed& placed = std::get<Placed>(placement);
  if (prompt.session) sessions_.Remember(*prompt.session, {placed.prefill, placed.decode});
  Assignment assignment;
  Worker& decode = workers_.at(placed.decode);
  if (!placed.prefill) decode.local_tokens_sent += placed.compute_tokens;
  assignment.decode = OpenLocked(placed.decode, request.prompt_tokens, 0);
  assignment.decode_name = decode.info.name;
  if (placed.prefill) {
    const worker_link::WorkerInfo& prefill = workers_.at(*placed.prefill).info;
    assignment.prefill = {OpenLocked(*placed.prefill, request.prompt_tokens, placed.compute_tokens),
                          prefill.name, decode.info.handoff_address, prefill.handoff_address};
    assignment.prefill->share.under_way.assign(prompt.keys.begin(), prompt.keys.end());
    under_way_.Begin(prompt.keys, *placed.prefill);
  }
  if (placed.donor) {
    assignment.donor = {*placed.donor, workers_.at(placed.donor->worker).info.name};
  }
  return assignment;
}

Share Registry::OpenLocked(WorkerId id, int32_t prompt_tokens, int32_t compute_tokens) {
  Worker& worker = workers_.at(id);
  worker.circuit.OnRequest(SystemClock().Now());
  Share share{id,
              worker.connection,
              compute_tokens,
              BlocksNeeded(worker.info.block_tokens, prompt_tokens),
              {}};
  worker.chosen = ++last_chosen_;
  ++worker.open_requests;
  worker.open_prompt_tokens += share.prompt_tokens;
  worker.open_blocks += share.blocks;
  RefreshLocked(id);
  return share;
}

void Registry::Release(const Share& share) {
  const std::lock_guard lock(mutex_);
  under_way_.End(share.under_way, share.worker);
  const auto found = workers_.find(share.worker);
  if (found == workers_.end() || found->second.connection != share.connection) return;
  Worker& worker = found->second;
  --worker.open_requests;
  worker.open_prompt_tokens -= share.prompt_tokens;
  worker.open_blocks -= share.blocks;
  RefreshLocked(share.worker);
}

bool Registry::HasRoom() const {
  const std::lock_guard lock(mutex_);
  FleetRoom fleet;
  for (const WorkerSnapshot& worker : snapshots_) {
    if (!worker.connected || worker.draining) continue;
    fleet.Add(worker);
    if (fleet.decided()) return true;
  }
  return fleet.room();
}

std::vector<WorkerView> Registry::Fleet() const {
  const TimePoint now = SystemClock().Now();
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
    if (worker.connected && !worker.refused) {
      const worker_link::WorkerStatus& status = worker.status;
      view.running = status.running;
      view.waiting = status.waiting;
      view.blocks_free = status.blocks_free;
      view.blocks_held = status.blocks_held;
      view.blocks_cached = status.blocks_cached;
      view.blocks_total = status.blocks_total;
      view.transfers = status.transfers;
      view.preemptions = worker.status.preemptions;
      view.suspect = SuspectLocked(worker, now);
      view.block_tokens = worker.info.block_tokens;
      view.max_sequences = worker.info.max_sequences;
      view.steps = status.steps;
      view.disk = status.disk;
      view.kv = status.kv;
      view.paths = status.paths;
    }
    views.push_back(std::move(view));
  }
  return views;
}

// Sent by a worker that cannot do its work. Not its fault: what the request asks for, overload, and
// that it drains.
bool Blames(const absl::Status& status, bool draining) {
  return absl::IsAborted(status) || absl::IsDataLoss(status) || absl::IsInternal(status) ||
         (absl::IsUnavailable(status) && !draining);
}

void Registry::NoteEvents(WorkerId id, const std::vector<worker_link::Event>& events) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Worker& worker = found->second;
  worker.last_heard = SystemClock().Now();
  for (const worker_link::Event& event : events) {
    if (const auto* failed = std::get_if<worker_link::FailedEvent>(&event)) {
      if (Blames(failed->status, worker.status.draining)) {
        NoteFailureLocked(worker, worker.last_heard);
      }
    } else if (!std::holds_alternative<worker_link::TokensEvent>(event)) {
      worker.circuit.OnSuccess();
    }
  }
  RefreshLocked(id);
}

// At most half of a role's workers have open circuits.
void Registry::NoteFailureLocked(Worker& worker, TimePoint now) {
  int workers = 0;
  int open = 0;
  for (const auto& [id, other] : workers_) {
    if (other.info.role != worker.info.role || !(other.usable() || &other == &worker)) continue;
    ++workers;
    open += other.circuit.IsOpen(now) && &other != &worker ? 1 : 0;
  }
  const bool was_open = worker.circuit.IsOpen(now);
  worker.circuit.OnFailure(now, 2 * (open + 1) <= workers);
  if (worker.circuit.IsOpen(now) && !was_open) {
    LogWarning(
        fmt::format("{} worker '{}' fails what it is given: others are preferred for a while",
                    RoleName(worker.info.role), worker.info.name));
  }
}

Duration Registry::PatienceWith(const Worker& worker) const {
  return std::max<Duration>(options_.stall_timeout, 3 * worker.status.longest_step);
}

bool Registry::HasPlaceBeside(WorkerId worker, int32_t prompt_tokens) const {
  PlacementRequest request;
  request.prompt_tokens = prompt_tokens;
  request.avoid = {worker};
  request.only_others = true;
  const std::lock_guard lock(mutex_);
  return std::holds_alternative<Placed>(Place(snapshots_, request));
}

bool Registry::HasOtherLocked(const Worker& worker, TimePoint now) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    const Worker& other = entry.second;
    return &other != &worker && other.info.role == worker.info.role && other.usable() &&
           !SuspectLocked(other, now);
  });
}

void Registry::CheckSilence(TimePoint now) {
  prefixes_.Tidy();
  std::vector<std::pair<WorkerId, absl::Status>> stalled;
  {
    const std::lock_guard lock(mutex_);
    // This process was stopped itself, or has no time to read: nobody else is to blame.
    const bool late = now - last_silence_check_ > options_.stall_timeout / 2;
    last_silence_check_ = now;
    for (auto& [id, worker] : workers_) {
      if (!worker.connected) continue;
      if (late) worker.last_heard = now;
      const TimePoint since = std::max(worker.last_heard, worker.told_stalled);
      if (now - since < PatienceWith(worker) || worker.open_requests == 0) continue;
      if (worker.info.role == Role::kDecode && !HasOtherLocked(worker, now)) continue;
      worker.told_stalled = now;
      stalled.emplace_back(
          id, absl::UnavailableError(
                  fmt::format("it said nothing for {:.1f} s", Seconds(now - worker.last_heard))));
      LogWarning(fmt::format("{} worker '{}' at {} says nothing for {:.1f} s with {} requests",
                             RoleName(worker.info.role), worker.info.name, worker.address,
                             Seconds(now - worker.last_heard), worker.open_requests));
    }
  }
  for (const auto& [id, why] : stalled) events_.on_stalled(id, why);
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
  chain_kinds_.clear();
  for (const auto& [id, worker] : workers_) {
    if (!worker.connected || worker.refused) continue;
    min_context_tokens_ = std::min(min_context_tokens_, worker.info.context_tokens);
    ChainKind kind{worker.info.cache_chain, worker.info.block_tokens};
    if (kind.name.empty() || chain_kinds_.size() == kMaxChainKinds) continue;
    if (std::ranges::find(chain_kinds_, kind) == chain_kinds_.end()) {
      chain_kinds_.push_back(std::move(kind));
    }
  }
}

}  // namespace baton::router
