#pragma once

// Where the router learns of workers: a list, a file, names in DNS, etcd.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "discovery/dns_watch.h"
#include "discovery/etcd_options.h"
#include "discovery/worker_watch.h"
#include "router/duty.h"

namespace baton::router {

struct WorkerSourcesOptions {
  std::vector<std::string> workers;  // addresses, and dns:NAME:PORT for all that the name has
  std::string workers_file;          // one address a line, '#' begins a comment; "": none
  discovery::EtcdOptions etcd;       // checked; off: none
  Duration file_poll = std::chrono::milliseconds(500);
  Duration dns_period = std::chrono::seconds(5);
  discovery::DnsWatch::Lookup look_up = discovery::LookUp;
};

struct ListedWorker {
  std::string address;
  // Its address comes from where it can be missing without meaning: from etcd, which may have lost
  // everything, or DNS, which tells of some. Such a worker leaves when its link is lost, too.
  bool stays_while_linked = false;

  bool operator==(const ListedWorker&) const = default;
};

// Of all sources together. Each keeps what it knew last while it cannot be asked.
class WorkerSources {
 public:
  // NotFound when the workers file cannot be read, InvalidArgument for over `max_workers`, and for
  // a dns: that is none. etcd and DNS are asked later, as often as it takes.
  static absl::StatusOr<std::unique_ptr<WorkerSources>> Create(const WorkerSourcesOptions& options,
                                                               size_t max_workers);
  WorkerSources(const WorkerSources&) = delete;
  WorkerSources& operator=(const WorkerSources&) = delete;

  bool may_change() const { return !options_.workers_file.empty() || etcd_ || !dns_.empty(); }
  // The addresses of now, each once, at most max_workers; reads the file again. One thread at a
  // time.
  std::vector<ListedWorker> List();
  // Until there may be news, file_poll at most. False after Stop.
  bool WaitForNews();
  void Stop();

  std::vector<DiscoveryView> Views() const;  // any thread

 private:
  struct Name {
    std::string text;
    std::unique_ptr<discovery::DnsWatch> watch;
  };

  WorkerSources(const WorkerSourcesOptions& options, size_t max_workers);
  absl::Status TakeWorkers();
  absl::StatusOr<std::vector<std::string>> ReadFile() const;
  void ReadFileAgain();
  void OnNews();

  const WorkerSourcesOptions options_;
  const size_t max_workers_;
  std::vector<std::string> fixed_;  // of options_.workers
  bool warned_of_size_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool news_ = false;
  bool stopping_ = false;
  std::vector<std::string> from_file_;
  std::string file_trouble_;
  int64_t file_failures_ = 0;

  std::vector<Name> dns_;  // these call OnNews until they are gone: last
  std::unique_ptr<discovery::WorkerWatch> etcd_;
};

}  // namespace baton::router
