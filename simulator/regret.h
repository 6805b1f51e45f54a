#pragma once

// What a way of choosing the ratio costs: the goodput of the split that it chooses against that of
// the best one, which only who has played all of them can know. All are played on the simulator.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/cost_model.h"
#include "planner/plan.h"
#include "planner/workload.h"
#include "simulator/live_control.h"
#include "simulator/simulation.h"

namespace baton::simulator {

struct RegretQuestion {
  planner::Deployment deployment;
  planner::Workload workload;
  planner::Objectives objectives;  // ttft_s is needed
  int64_t workers = 8;
  int64_t batch = 0;
  int64_t requests = 0;  // of each run; 0: the trace once
  uint64_t seed = 1;
};

struct PlayedSplit {
  std::string how;  // "best", "plan", "formulas", "1:1", "mean rates"
  int64_t prefill = 0, decode = 0;
  double goodput_per_s = 0;  // the largest rate that keeps both objectives at the percentile
};

struct RegretReport {
  std::vector<PlayedSplit> chosen;  // the best first
  int64_t runs = 0;
};

// Largest rate within the objectives, to 1%, by playing the workload faster and slower. 0 when not
// even a thousandth of its rate is.
absl::StatusOr<double> PlayedGoodput(const SimulatedWorker& worker, const RegretQuestion& question,
                                     int64_t prefill, int64_t decode, int64_t* runs);

// The plan for a fleet: the formulas' split (planner/plan.h), then its neighbours played, until
// none carries more. What the formulas leave out of bursts and handoffs is in it then.
struct PlayedPlan {
  planner::Plan plan;
  int64_t formula_prefill = 0;  // of the formulas' split
  double goodput_per_s = 0;     // played
};
absl::StatusOr<PlayedPlan> PlanByPlaying(const RegretQuestion& question, int64_t* runs);

// The split that mean rates give, without waiting or variation: workers in the ratio of the mean
// prefill time to the mean time in a decode batch as large as the gap allows. What planners on
// throughput tables do.
PlayedSplit MeanRateSplit(const SimulatedWorker& worker, const RegretQuestion& question);

absl::StatusOr<RegretReport> StaticRegret(const RegretQuestion& question);

// Traffic that changes half way, each half at `load` of what its best split carries, of those that
// leave the controller's fewest workers of each role. Both halves are equally long, unless the
// second is a trace.
struct LiveQuestion {
  RegretQuestion first;  // and the fleet
  planner::Workload second;
  double load = 0.85;
  planner::ControlOptions control;
  double every_s = 2;   // from decision to decision
  double grace_s = 30;  // that streams have where a worker changes its role
};
struct LiveReport {
  PlayedSplit best_first, best_second;
  double first_s = 0, duration_s = 0;  // of arrivals
  int64_t requests = 0;
  // Requests within both objectives.
  int64_t good_clairvoyant = 0;  // each half on its best split, from its first request on
  int64_t good_told = 0;         // told of the change when it comes, and changes the workers then
  int64_t good_live = 0;         // begins on the first half's best split
  int64_t good_stays = 0;        // the same, and stays there
  int64_t good_equal = 0;        // 1:1
  std::vector<LiveControl::Change> changes;
  int64_t moved = 0;
};
absl::StatusOr<LiveReport> LiveRegret(const LiveQuestion& question);

}  // namespace baton::simulator
