#pragma once

// Flags that `baton plan` and `baton simulate` share, and what they load.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "planner/cost_model.h"
#include "planner/workload.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct DeploymentFlags {
  std::string model;
  std::string hardware;
  int64_t chips = 0;
  int64_t pipeline = 0;
  std::string weights_dtype, kv_dtype = "bf16", compute_dtype = "bf16";
  planner::Assumptions assumptions;
};

struct TrafficFlags {
  double input = 0, output = 0, input_cv = 0, output_cv = 0, prefix_hit = 0;
  double rate = 0, arrival_scv = 1;
  std::string trace;
};

// Names that are not known and numbers that make no sense are bad usage.
void AddDeploymentFlags(CLI::App* app, DeploymentFlags* flags);
void AddTrafficFlags(CLI::App* app, TrafficFlags* flags);

// Lengths or a trace, not both, not neither. Throws CLI::ValidationError, for final_callback.
void CheckTraffic(const TrafficFlags& flags);

// All but the worker's shape, which is one chip.
absl::StatusOr<planner::Deployment> OneChip(const DeploymentFlags& flags,
                                            const planner::Assumptions& assumptions);

// The fewest chips, a power of two, that hold the model and a sequence.
int64_t FewestChips(const planner::Deployment& one_chip, double context_tokens);

// What the links do not join is stages of a pipeline; the book's worker is one slice. `pipeline` 0:
// as few stages as that gives. InvalidArgument when chips and stages do not fit together.
absl::StatusOr<planner::WorkerShape> ShapeOf(const planner::Deployment& deployment, int64_t chips,
                                             int64_t pipeline);

absl::StatusOr<planner::Workload> LoadWorkload(const TrafficFlags& flags);

// For CLI11's check(): refuses what is no finite number above 0.
std::string CheckPositive(const std::string& text);

}  // namespace baton::cli
