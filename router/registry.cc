#include "router/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "common/loopback.h"
#include "common/status_macros.h"

namespace baton::router {

using worker_link::ClientInput;
using worker_link::Event;
using worker_link::LinkClient;
using worker_link::Role;
using worker_link::WorkerConnected;
using worker_link::WorkerInfo;
using worker_link::WorkerLost;
using worker_link::WorkerStatus;

absl::StatusOr<std::unique_ptr<Registry>> Registry::Create(const RegistryOptions& options,
                                                           RegistryEvents events) {
  std::unique_ptr<Registry> registry(new Registry(options, std::move(events)));
  BATON_ASSIGN_OR_RETURN(registry->sources_, WorkerSources::Create(options, kMaxWorkers));
  registry->SetListed(registry->sources_->List());
  if (registry->sources_->may_change()) {
    registry->follower_ = std::thread(&Registry::FollowSources, registry.get());
  }
  return registry;
}

Registry::Registry(const RegistryOptions& options, RegistryEvents events)
    : options_(options), events_(std::move(events)), prefixes_(options.prefix_index_entries) {}

Registry::~Registry() {
  if (sources_ != nullptr) sources_->Stop();
  if (follower_.joinable()) follower_.join();
  std::map<WorkerId, std::unique_ptr<LinkClient>> clients;
  {
    const std::unique_lock lock(clients_mutex_);
    clients.swap(clients_);
  }
  clients.clear();  // waits for calls under way, which may still use the (now empty) maps
}

void Registry::FollowSources() {
  while (sources_->WaitForNews()) {
    SetListed(sources_->List());
    DropIdleLeavers();
  }
}

// What would carry prompts over a network for everybody to read.
void Registry::DropUnsafe(std::vector<ListedWorker>& listed) {
  if (!options_.only_safe || options_.security.tls.on()) return;
  std::erase_if(listed, [this](const ListedWorker& worker) {
    if (IsLoopback(worker.address)) return false;
    if (unsafe_.size() >= kMaxWorkers) unsafe_.clear();
    if (!unsafe_.insert(worker.address).second) return true;
    LogError(fmt::format(
        "worker {} is not dialled: the link would not be encrypted; give --link-cert, --link-key "
        "and --link-ca, or --insecure",
        worker.address));
    return true;
  });
}

bool Registry::NoteListedLocked(Worker& worker, const ListedWorker* listed) const {
  if (listed != nullptr) {
    worker.stays_while_linked = listed->stays_while_linked;
    worker.unlisted = false;
    return false;
  }
  if (worker.leaving) return true;
  if (worker.stays_while_linked && worker.connected) {
    const bool ends = worker.status.draining;  // by itself: its link goes next
    if (!std::exchange(worker.unlisted, true) && !ends) {
      LogWarning(fmt::format("worker '{}' at {} is no longer listed, but its link is up: it stays",
                             worker.info.name, worker.address));
    }
    return false;
  }
  LogInfo(fmt::format("worker {} leaves the fleet", worker.address));
  return true;
}

void Registry::SetListed(std::vector<ListedWorker> listed) {
  DropUnsafe(listed);
  std::map<std::string, const ListedWorker*> missing;
  for (const ListedWorker& worker : listed) missing.emplace(worker.address, &worker);
  std::vector<std::pair<WorkerId, std::string>> added;
  bool returned = false;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [id, worker] : workers_) {
      const auto found = missing.find(worker.address);
      const bool leaving =
          NoteListedLocked(worker, found == missing.end() ? nullptr : found->second);
      if (found != missing.end()) missing.erase(found);
      if (leaving == worker.leaving) continue;
      returned |= !leaving;
      worker.leaving = leaving;
      RefreshLocked(id);
    }
    for (const ListedWorker& worker : listed) {  // ids in the order of the list
      if (missing.erase(worker.address) == 0) continue;
      Worker& entry = workers_[next_id_];
      entry.address = worker.address;
      entry.stays_while_linked = worker.stays_while_linked;
      RefreshLocked(next_id_);
      added.emplace_back(next_id_++, worker.address);
    }
  }
  for (const auto& [id, address] : added) Connect(id, address);
  if (returned) events_.on_usable();
}

void Registry::Connect(WorkerId id, const std::string& address) {
  const std::unique_lock lock(clients_mutex_);
  clients_[id] = LinkClient::Create(
      address, options_.router_name,
      [this, id](ClientInput input) { OnInput(id, std::move(input)); }, options_.security);
}

void Registry::DropIdleLeavers() {
  std::vector<WorkerId> idle;
  bool usable = false;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = workers_.begin(); it != workers_.end();) {
      const bool drop = it->second.leaving && it->second.open_requests == 0;
      if (drop) idle.push_back(it->first);
      it = drop ? workers_.erase(it) : std::next(it);
    }
    for (const WorkerId id : idle) RefreshLocked(id);
    usable = AdmitTwinsLocked();
    CountContextLocked();
  }
  if (usable) events_.on_usable();
  for (const WorkerId id : idle) {
    prefixes_.Drop(id);
    std::unique_ptr<LinkClient> client;  // destroyed without the lock: it waits for its calls
    const std::unique_lock lock(clients_mutex_);
    client = std::move(clients_.at(id));
    clients_.erase(id);
  }
}

bool Registry::Send(WorkerId worker, worker_link::Command command) {
  const std::shared_lock lock(clients_mutex_);
  const auto found = clients_.find(worker);
  return found != clients_.end() && found->second->Send(std::move(command));
}

void Registry::OnInput(WorkerId id, ClientInput input) {
  if (auto* events = std::get_if<std::vector<Event>>(&input)) {
    NoteEvents(id, *events);
    events_.on_events(id, std::move(*events));
  } else if (auto* status = std::get_if<WorkerStatus>(&input)) {
    OnStatus(id, *status);
  } else if (const auto* news = std::get_if<BlockNews>(&input)) {
    OnBlocks(id, *news);
  } else if (auto* connected = std::get_if<WorkerConnected>(&input)) {
    OnConnected(id, std::move(connected->info));
    if (options_.prefix_index_entries > 0) Send(id, worker_link::TellBlocksCommand{});
  } else if (auto* lost = std::get_if<WorkerLost>(&input)) {
    OnLost(id, lost->why);
  }
}

void Registry::OnBlocks(WorkerId id, const BlockNews& news) {
  if (!prefixes_.Apply(id, news)) Send(id, worker_link::TellBlocksCommand{});
}

absl::Status Registry::CheckWorker(const WorkerInfo& info) const {
  if (info.vocab_size < options_.vocab_size) {
    return absl::FailedPreconditionError(
        fmt::format("its vocabulary has {} tokens, but this router's model has {}", info.vocab_size,
                    options_.vocab_size));
  }
  if (info.block_tokens < 1 || info.context_tokens < 2) {
    return absl::FailedPreconditionError(fmt::format("it has {} tokens a block and a context of {}",
                                                     info.block_tokens, info.context_tokens));
  }
  return absl::OkStatus();
}

absl::Status Registry::CheckNameLocked(const Worker& worker) const {
  for (const auto& [id, other] : workers_) {
    if (&other == &worker || !other.connected || other.refused) continue;
    if (other.info.name != worker.info.name) continue;
    if (other.info.incarnation == worker.info.incarnation) {
      return absl::AlreadyExistsError(
          fmt::format("it is the process that is known at {}: list it once", other.address));
    }
    return absl::AlreadyExistsError(fmt::format(
        "the worker at {} has that name, too: give each a --name of its own", other.address));
  }
  return absl::OkStatus();
}

bool Registry::AdmitTwinsLocked() {
  bool usable = false;
  for (auto& [id, worker] : workers_) {
    if (!worker.connected || !worker.twin || !CheckNameLocked(worker).ok()) continue;
    worker.twin = false;
    worker.refused = false;
    LogInfo(fmt::format("{} worker '{}' at {} gets work: the other of its name is gone",
                        RoleName(worker.info.role), worker.info.name, worker.address));
    RefreshLocked(id);
    usable |= worker.usable();
  }
  return usable;
}

void Registry::OnConnected(WorkerId id, WorkerInfo info) {
  absl::Status check = CheckWorker(info);
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Worker& worker = found->second;
  worker.info = std::move(info);
  worker.fingerprint = worker.info.fingerprint;
  worker.kv_layout = worker.info.kv_layout;
  if (check.ok()) check = CheckNameLocked(worker);
  if (check.ok()) {
    LogInfo(fmt::format("{} worker '{}' at {} connected: model {}, context {}",
                        RoleName(worker.info.role), worker.info.name, worker.address,
                        worker.info.model, worker.info.context_tokens));
  } else {
    LogError(fmt::format("{} worker '{}' at {} gets no work: {}", RoleName(worker.info.role),
                         worker.info.name, worker.address, std::string(check.message())));
  }
  worker.connected = true;
  worker.refused = !check.ok();
  worker.twin = absl::IsAlreadyExists(check);
  if (check.ok()) WarnOfUnlikeLocked(worker);
  worker.has_status = false;
  worker.pace = StepPace();
  worker.circuit = Circuit();  // most likely a new process: the old one's failures are not its own
  worker.last_heard = SystemClock().Now();
  ++worker.connection;
  RefreshLocked(id);
  CountContextLocked();
}

// One line is enough: a model or a machine that is not the others' shows at the first of them.
void Registry::WarnOfUnlikeLocked(const Worker& worker) const {
  for (const auto& [id, other] : workers_) {
    if (!other.connected || other.refused || other.info.role == worker.info.role ||
        other.info.fingerprint == worker.info.fingerprint) {
      continue;
    }
    LogWarning(fmt::format(
        "'{}' and '{}' cannot hand KV over, and get no requests together: model and arithmetic are "
        "'{}' at the one, '{}' at the other",
        worker.info.name, other.info.name, worker.info.fingerprint, other.info.fingerprint));
    return;
  }
}

void Registry::OnStatus(WorkerId id, const WorkerStatus& status) {
  bool became_usable = false;
  bool moves = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = workers_.find(id);
    if (found == workers_.end()) return;
    Worker& worker = found->second;
    const bool was_usable = worker.usable();
    if (status.draining && !worker.status.draining) {
      LogInfo(fmt::format("worker '{}' is draining", worker.info.name));
    }
    if (status.role && *status.role != worker.info.role) {
      worker.info.role = *status.role;
      worker.pace = StepPace();
      LogInfo(fmt::format("worker '{}' is a {} worker now", worker.info.name,
                          RoleName(worker.info.role)));
    }
    worker.status = status;
    worker.local_tokens_sent = 0;
    worker.has_status = true;
    worker.last_heard = SystemClock().Now();
    if (worker.info.role == Role::kDecode) {
      worker.pace.Report(status.steps, &steps_);
      decode_step_ = DecodeStepCostOf(steps_);
    }
    RefreshLocked(id);
    became_usable = worker.usable() && !was_usable;
    moves = status.leaving && HasOtherLocked(worker, worker.last_heard);
  }
  if (became_usable) events_.on_usable();
  if (moves) events_.on_leaving(id);
}

void Registry::OnLost(WorkerId id, const absl::Status& why) {
  bool usable = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = workers_.find(id);
    if (found == workers_.end()) return;
    Worker& worker = found->second;
    if (!worker.connected) return;  // a dial that failed
    LogWarning(fmt::format("{} worker '{}' at {} was lost with {} requests: {}",
                           RoleName(worker.info.role), worker.info.name, worker.address,
                           worker.open_requests, std::string(why.message())));
    worker.connected = false;
    ++worker.connection;  // shares of the lost connection are void
    worker.open_requests = 0;
    worker.open_prompt_tokens = 0;
    worker.open_blocks = 0;
    RefreshLocked(id);
    usable = AdmitTwinsLocked();
    CountContextLocked();
  }
  prefixes_.Drop(id);
  events_.on_lost(id, why);
  if (usable) events_.on_usable();
}

}  // namespace baton::router
