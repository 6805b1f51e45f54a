// Registry's part of what operators ask of workers.

#include <fmt/format.h>

#include <utility>

#include "common/logging.h"
#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "router/registry.h"

namespace baton::router {

absl::StatusOr<WorkerId> Registry::FindLocked(const std::string& worker) const {
  std::vector<WorkerId> named;
  std::vector<std::string> known;
  for (const auto& [id, each] : workers_) {
    if (each.address == worker) return id;
    if (each.connection > 0 && each.info.name == worker) named.push_back(id);
    known.push_back(each.connection > 0 ? each.info.name : each.address);
  }
  if (named.size() == 1) return named.front();
  if (named.size() > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} workers are named '{}': use an address", named.size(), worker));
  }
  return absl::NotFoundError(
      fmt::format("there is no worker '{}'{}", worker, DidYouMean(worker, known)));
}

// A decode worker cannot be done without; a prefill worker can, for decode workers prefill.
absl::Status Registry::CheckLeftLocked(const Worker& worker) const {
  if (worker.info.role != worker_link::Role::kDecode || !worker.usable()) return absl::OkStatus();
  if (HasOtherLocked(worker, SystemClock().Now())) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "worker '{}' is the only decode worker that takes work: without it no request is served",
      worker.info.name));
}

absl::Status Registry::SetDuty(const DutyChange& change) {
  worker_link::DutyCommand command;
  WorkerId id = 0;
  {
    const std::lock_guard lock(mutex_);
    BATON_ASSIGN_OR_RETURN(id, FindLocked(change.worker));
    const Worker& worker = workers_.at(id);
    if (!worker.connected) {
      return absl::UnavailableError(fmt::format("worker '{}' is not connected", change.worker));
    }
    command.role = change.role.value_or(worker.info.role);
    command.takes_work = change.takes_work;
    command.grace = change.grace;
    const bool stays = command.takes_work && command.role == worker.info.role;
    if (!stays && !change.force) BATON_RETURN_IF_ERROR(CheckLeftLocked(worker));
  }
  LogInfo(fmt::format("worker '{}' is told to be a {} worker that takes {} work", change.worker,
                      RoleName(command.role), command.takes_work ? "new" : "no new"));
  if (Send(id, command)) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("worker '{}' takes no commands", change.worker));
}

}  // namespace baton::router
