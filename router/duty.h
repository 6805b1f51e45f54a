#pragma once

// What an operator wants a worker to be from now on, as the admin API is told.

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

}  // namespace baton::router
