#include "tests/kv_transfer/explore.h"

#include "common/logging.h"
#include "tests/kv_transfer/handoff_simulation.h"

namespace baton::kv_transfer {

Exploration Explore(uint64_t first_seed, uint64_t stride, uint64_t schedules) {
  // What a loop says about damaged messages is of no interest a million times.
  InitLogging("simulated", LogLevel::kError);
  uint64_t seed = first_seed;
  Exploration exploration;
  for (; exploration.schedules < schedules; ++exploration.schedules, seed += stride) {
    HandoffSimulation simulation(seed);
    exploration.violation = simulation.Run();
    if (!exploration.violation.empty()) {
      exploration.bad_seed = seed;
      break;
    }
    exploration.handoffs += simulation.handoffs();
    exploration.succeeded += simulation.succeeded();
  }
  return exploration;
}

}  // namespace baton::kv_transfer
