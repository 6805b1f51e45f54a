#pragma once

// What all workers of a simulated fleet have in common: times, memory, limits.

#include <cstdint>

#include "absl/status/statusor.h"
#include "planner/cost_model.h"

namespace baton::simulator {

struct SimulatedWorker {
  planner::StepCost step_s;
  int32_t stages = 1;  // of a pipeline: a prompt's first token comes so many steps less one later
  int32_t block_tokens = 16;
  int32_t kv_blocks = 0;
  int32_t chunk_tokens = 256;
  int32_t max_batch = 64;
  double kv_bytes_per_token = 0;
  double kv_bytes_per_s = 0;  // of a handoff; 0: KV moves in no time
};

inline constexpr int32_t kMostBatch = 8192;

// A worker of this shape on the cost model. `batch`: sequences at most; 0: as many as fit.
// InvalidArgument when the model does not fit.
absl::StatusOr<SimulatedWorker> WorkerOf(const planner::Deployment& deployment, int64_t batch);

}  // namespace baton::simulator
