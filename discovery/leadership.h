#pragma once

// Which of several processes may do what only one may: the one that holds a key in etcd.

#include <memory>
#include <string>

#include "common/clock.h"
#include "discovery/etcd_options.h"

namespace baton::discovery {

struct LeadershipOptions {
  EtcdOptions etcd;              // checked
  std::string key;               // below the prefix of `etcd`: "control"
  std::string name;              // of this process, for people
  std::chrono::seconds ttl{10};  // another may lead so long after this one was heard last
};

// Puts the key under a lease, where nobody has, and keeps that alive, on a thread of its own, until
// destroyed; else looks again every third of the ttl. etcd may be away at any time: then nobody
// leads, once the lease may have run out.
class Leadership {
 public:
  static std::unique_ptr<Leadership> Start(const LeadershipOptions& options);
  // Gives it up where etcd answers within a second; else it goes with the lease.
  virtual ~Leadership() = default;

  // True for one process at a time: three quarters of the ttl after its last sign of life, by its
  // own clock, it is so no longer, and etcd lets nobody else before the whole of it. Any thread;
  // does not wait.
  virtual bool Leads() const = 0;
  // Who does, as far as is known; "": nobody, or etcd does not say.
  virtual std::string Leader() const = 0;
};

}  // namespace baton::discovery
