#pragma once

// The addresses that a name has in DNS, as Kubernetes' headless services have one for each pod.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/host_port.h"
#include "discovery/worker_watch.h"

namespace baton::discovery {

// NAME:PORT's addresses as HOST:PORT, in order and each once. NotFound when the name has none,
// Unavailable when nobody answers. Blocks for as long as the system's resolver does.
absl::StatusOr<std::vector<std::string>> LookUp(const HostPort& name);

// Looks the name up again and again, on a thread of its own. A name that has no address at a time,
// or cannot be looked up, keeps those that it had.
class DnsWatch {
 public:
  using Lookup = std::function<absl::StatusOr<std::vector<std::string>>(const HostPort&)>;

  // `on_change` is called on the watch's thread, and not any more once the destructor has returned.
  // It must not call this.
  DnsWatch(HostPort name, Duration period, std::function<void()> on_change,
           Lookup look_up = LookUp);
  ~DnsWatch();  // does not wait for a look-up under way
  DnsWatch(const DnsWatch&) = delete;
  DnsWatch& operator=(const DnsWatch&) = delete;

  std::vector<std::string> Addresses() const;
  SourceState state() const;

 private:
  struct Shared;
  static void Run(const std::shared_ptr<Shared>& shared);

  const std::shared_ptr<Shared> shared_;  // with the thread, which may outlive this
};

}  // namespace baton::discovery
