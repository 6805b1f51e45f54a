#pragma once

// What a decode step will take at a worker: the cost model as learned from all of the fleet's steps
// (planner/step_learner.h), and how a worker's own compare with it. Pure; not thread-safe.

#include <cstdint>

#include "planner/step_learner.h"
#include "router/placement.h"
#include "worker_link/commands.h"

namespace baton::router {

planner::StepSums SumsOf(const worker_link::StepTotals& totals);

// All 0 before `fleet` has learned enough.
DecodeStepCost DecodeStepCostOf(const planner::StepLearner& fleet);

// Of one connection of one worker.
class StepPace {
 public:
  // Of the fleet, before what it learned is believed, and of a worker, before it is slow: one that
  // is thought so gets less work, and hardly a chance to show that it is not.
  static constexpr int64_t kLeastReports = 20;

  // What its totals have grown by goes to `fleet`, and is compared with it. Totals that shrank are
  // of another role, and begin anew.
  void Report(const worker_link::StepTotals& totals, planner::StepLearner* fleet);
  // How many times as long as the fleet's its steps take: to an eighth of an octave, so that equal
  // machines are equal. 1: not known.
  double slowness() const;

 private:
  worker_link::StepTotals seen_;
  double slowness_log2_ = 0;  // mean of the latest reports
  int64_t reports_ = 0;       // of which it is
};

}  // namespace baton::router
