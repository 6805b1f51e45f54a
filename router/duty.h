#pragma once

// What an operator wants a worker to be from now on, as the admin API is told; and what the router
// tells of where it learns of workers.

#include <cstdint>
#include <optional>
#include <string>

#include "common/clock.h"
#include "worker_link/commands.h"

namespace baton::router {

struct DutyChange {
  std::string worker;                     // its name, or its address where names repeat
  std::optional<worker_link::Role> role;  // empty: the one that it has
  bool takes_work = true;                 // false: it drains, and stays so
  Duration grace{};    // what its streams have to end, before they are moved to other workers
  bool force = false;  // even when no other worker of its role is left to do the work
};

// Where the router learns of workers, and how well that goes: GetFleet.
struct DiscoveryView {
  std::string source;    // "file", "dns", "etcd"
  std::string where;     // path, NAME:PORT, prefix of the keys
  bool current = false;  // false: it cannot be asked, and the list is the last that was known
  std::string trouble;   // why
  int64_t failures = 0;  // tries that failed since the router's start
  size_t workers = 0;    // listed
};

}  // namespace baton::router
