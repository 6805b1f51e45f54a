#include "router/worker_sources.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/workers_file.h"

namespace baton::router {
namespace {

constexpr std::string_view kDns = "dns:";
constexpr size_t kMaxNames = 64;
constexpr Duration kNewsPause = std::chrono::milliseconds(20);

DiscoveryView ViewOf(const char* source, std::string where, discovery::SourceState state) {
  return {source,         std::move(where), state.current, std::move(state.trouble),
          state.failures, state.workers};
}

}  // namespace

WorkerSources::WorkerSources(const WorkerSourcesOptions& options, size_t max_workers)
    : options_(options), max_workers_(max_workers) {}

absl::StatusOr<std::unique_ptr<WorkerSources>> WorkerSources::Create(
    const WorkerSourcesOptions& options, size_t max_workers) {
  std::unique_ptr<WorkerSources> sources(new WorkerSources(options, max_workers));
  BATON_RETURN_IF_ERROR(sources->TakeWorkers());
  if (!options.workers_file.empty()) {
    BATON_ASSIGN_OR_RETURN(sources->from_file_, sources->ReadFile());
  }
  if (options.etcd.on()) {
    sources->etcd_ = discovery::WorkerWatch::Start(
        options.etcd, max_workers, [sources = sources.get()] { sources->OnNews(); });
  }
  return sources;
}

absl::Status WorkerSources::TakeWorkers() {
  for (const std::string& worker : options_.workers) {
    if (!worker.starts_with(kDns)) {
      fixed_.push_back(worker);
      continue;
    }
    absl::StatusOr<HostPort> name = ParseHostPort(std::string_view(worker).substr(kDns.size()));
    if (!name.ok() || dns_.size() == kMaxNames) {
      return absl::InvalidArgumentError(fmt::format(
          "'{}' must be dns:NAME:PORT, and there may be {} of them", worker, kMaxNames));
    }
    dns_.push_back({worker.substr(kDns.size()), std::make_unique<discovery::DnsWatch>(
                                                    *std::move(name), options_.dns_period,
                                                    [this] { OnNews(); }, options_.look_up)});
  }
  if (fixed_.size() <= max_workers_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} worker addresses, but at most {} are served", fixed_.size(), max_workers_));
}

absl::StatusOr<std::vector<std::string>> WorkerSources::ReadFile() const {
  BATON_ASSIGN_OR_RETURN(std::vector<std::string> addresses,
                         ReadWorkersFile(options_.workers_file));
  const size_t all = addresses.size() + fixed_.size();
  if (all <= max_workers_) return addresses;
  return absl::InvalidArgumentError(
      fmt::format("{} has too many addresses: {} worker addresses, but at most {} are served",
                  options_.workers_file, all, max_workers_));
}

// A file that cannot be read just now (it is being replaced) changes nothing.
void WorkerSources::ReadFileAgain() {
  absl::StatusOr<std::vector<std::string>> addresses = ReadFile();
  const std::lock_guard lock(mutex_);
  if (addresses.ok()) {
    from_file_ = *std::move(addresses);
    file_trouble_.clear();
    return;
  }
  ++file_failures_;
  const std::string before =
      std::exchange(file_trouble_, std::string(addresses.status().message()));
  if (before != file_trouble_) {
    LogWarning(fmt::format("{}; the workers stay as they were", file_trouble_));
  }
}

std::vector<ListedWorker> WorkerSources::List() {
  std::vector<ListedWorker> listed;
  std::set<std::string> seen;
  size_t left_out = 0;
  const auto add = [&](const std::string& address, bool stays_while_linked) {
    if (!seen.insert(address).second) return;
    if (listed.size() < max_workers_) {
      listed.push_back({address, stays_while_linked});
    } else {
      ++left_out;
    }
  };
  for (const std::string& address : fixed_) add(address, false);
  if (!options_.workers_file.empty()) ReadFileAgain();
  {
    const std::lock_guard lock(mutex_);
    for (const std::string& address : from_file_) add(address, false);
  }
  for (const Name& name : dns_) {
    for (const std::string& address : name.watch->Addresses()) add(address, true);
  }
  if (etcd_ != nullptr) {
    for (const discovery::RegisteredWorker& worker : etcd_->Workers()) add(worker.address, true);
  }
  if (left_out > 0 && !std::exchange(warned_of_size_, true)) {
    LogError(fmt::format("{} workers are known, but at most {} are served",
                         listed.size() + left_out, max_workers_));
  }
  return listed;
}

void WorkerSources::OnNews() {
  const std::lock_guard lock(mutex_);
  news_ = true;
  changed_.notify_all();
}

bool WorkerSources::WaitForNews() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, options_.file_poll, [this] { return news_ || stopping_; });
  // A fleet that comes all at once is not listed once for each of its workers.
  changed_.wait_for(lock, kNewsPause, [this] { return stopping_; });
  news_ = false;
  return !stopping_;
}

void WorkerSources::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

std::vector<DiscoveryView> WorkerSources::Views() const {
  std::vector<DiscoveryView> views;
  if (!options_.workers_file.empty()) {
    const std::lock_guard lock(mutex_);
    views.push_back(
        ViewOf("file", options_.workers_file,
               {file_trouble_.empty(), file_trouble_, from_file_.size(), file_failures_}));
  }
  for (const Name& name : dns_) views.push_back(ViewOf("dns", name.text, name.watch->state()));
  if (etcd_ != nullptr) {
    views.push_back(ViewOf("etcd", options_.etcd.prefix, etcd_->state()));
  }
  return views;
}

}  // namespace baton::router
