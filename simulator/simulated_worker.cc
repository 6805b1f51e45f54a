#include "simulator/simulated_worker.h"

#include <algorithm>
#include <cmath>

#include "common/status_macros.h"
#include "planner/ratio.h"

namespace baton::simulator {

absl::StatusOr<SimulatedWorker> WorkerOf(const planner::Deployment& deployment, int64_t batch) {
  constexpr double kMostBlocks = 1 << 30;
  BATON_RETURN_IF_ERROR(planner::CheckFits(deployment, 1));
  SimulatedWorker worker;
  worker.step_s = [deployment](const planner::StepLoad& load) {
    return planner::StepSeconds(deployment, load);
  };
  worker.stages = static_cast<int32_t>(deployment.worker.pipeline_parallel);
  worker.kv_bytes_per_token = KvBytesPerToken(deployment.model, deployment.precision);
  const double tokens = KvCapacityBytes(deployment) / worker.kv_bytes_per_token;
  worker.kv_blocks =
      static_cast<int32_t>(std::clamp(std::floor(tokens / worker.block_tokens), 1.0, kMostBlocks));
  worker.chunk_tokens = static_cast<int32_t>(deployment.assumptions.chunk_tokens);
  worker.max_batch =
      static_cast<int32_t>(batch > 0 ? std::min<int64_t>(batch, kMostBatch) : kMostBatch);
  worker.kv_bytes_per_s = KvLinkBytesPerSecond(deployment);
  return worker;
}

}  // namespace baton::simulator
