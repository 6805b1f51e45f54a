#pragma once

// What a simulation can be asked for.

#include <cstdint>

#include "absl/status/statusor.h"
#include "simulator/simulation.h"

namespace baton::simulator {

// How many requests are to be played. InvalidArgument as of Simulate.
absl::StatusOr<int64_t> CheckedRequests(const SimulatedWorker& worker,
                                        const planner::Workload& workload,
                                        const SimulationOptions& options);

}  // namespace baton::simulator
