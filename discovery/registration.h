#pragma once

// A worker's entry in etcd, which lives as long as the worker does.

#include <memory>

#include "common/clock.h"
#include "discovery/etcd_options.h"
#include "discovery/registered_worker.h"

namespace baton::discovery {

struct RegistrationOptions {
  EtcdOptions etcd;              // checked
  std::chrono::seconds ttl{10};  // the entry of a worker that dies is gone so long after
};

// Puts the worker's key under a lease and keeps that alive, on a thread of its own, until
// destroyed. etcd may be away at any time, the start included: the entry comes back with it, and
// the log tells. A key that somebody else deletes comes back, too, with the next sign of life (a
// third of the ttl); one that another process took over, at the same address, is left to it with a
// loud warning.
class Registration {
 public:
  static std::unique_ptr<Registration> Start(const RegistrationOptions& options,
                                             RegisteredWorker worker);
  // Deletes the entry where etcd answers within a second; else it goes with the lease.
  virtual ~Registration() = default;

  // From now on the entry says this; its address stays. Any thread, does not wait.
  virtual void Update(const std::string& role, bool draining) = 0;
};

}  // namespace baton::discovery
