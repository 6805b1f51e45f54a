#pragma once

// The workers that are registered in etcd, as long as it is watched.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "discovery/etcd_options.h"
#include "discovery/registered_worker.h"

namespace baton::discovery {

// How well a list of workers can be relied on.
struct SourceState {
  bool current = false;  // what it lists is so now; false: it is what was known last
  std::string trouble;   // why not
  size_t workers = 0;    // listed
  int64_t failures = 0;  // tries that failed since the start
};

// Lists the keys under the prefix, then watches them from the list's revision on. After a cut
// connection it goes on at the next endpoint behind the last change that it knows; where that
// history is compacted, or of another store, it lists anew. While etcd is away the last list stays;
// the log tells when it goes and when it is back. One thread of its own.
class WorkerWatch {
 public:
  // `on_change` is called on the watch's thread when what Workers gives has changed; it must not
  // block. `options` are checked. More than `max_workers` keys are not taken, and told in the log.
  static std::unique_ptr<WorkerWatch> Start(const EtcdOptions& options, size_t max_workers,
                                            std::function<void()> on_change);
  virtual ~WorkerWatch() = default;

  // By their keys; an address that two keys have is there once.
  virtual std::vector<RegisteredWorker> Workers() const = 0;
  virtual SourceState state() const = 0;
  // Times that everything was listed, for tests.
  virtual int64_t lists() const = 0;
};

}  // namespace baton::discovery
