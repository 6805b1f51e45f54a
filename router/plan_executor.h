#pragma once

// Who starts and stops workers: a cluster's own controller, told how many there shall be.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker_link/commands.h"

namespace baton::router {

// Called by one thread at a time. Calls may block for some seconds.
class PlanExecutor {
 public:
  virtual ~PlanExecutor() = default;
  // Workers of this role that there are to be.
  virtual absl::StatusOr<int64_t> Replicas(worker_link::Role role) = 0;
  virtual absl::Status SetReplicas(worker_link::Role role, int64_t replicas) = 0;
};

}  // namespace baton::router
