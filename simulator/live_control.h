#pragma once

// The live controller (planner/controller.h) over a simulated fleet, as the router has it over a
// real one.

#include <vector>

#include "planner/controller.h"
#include "planner/recent_traffic.h"
#include "simulator/simulation.h"

namespace baton::simulator {

planner::MeasuredWorker MeasuredOf(const SimulatedWorker& worker);

class LiveControl : public FleetControl {
 public:
  LiveControl(const SimulatedWorker& worker, const planner::ControlOptions& options);

  void OnArrival(double now_s, int64_t request, int32_t input_tokens) override;
  void OnFirstToken(double now_s, int64_t request, int32_t cached_tokens) override;
  void OnEnd(double now_s, int64_t request, int32_t output_tokens) override;
  void OnProgress(int64_t request, int32_t output_tokens) override;
  std::vector<RoleChange> Decide(const FleetView& fleet) override;

  // Those that were no hold.
  struct Change {
    double at_s = 0;
    planner::ControlDecision decision;
  };
  const std::vector<Change>& changes() const { return changes_; }

 private:
  static constexpr size_t kLeastRequests = 20;

  const planner::MeasuredWorker worker_;
  const planner::ControlOptions options_;
  planner::ControlState state_;
  planner::RecentTraffic traffic_{{}};
  std::vector<Change> changes_;
};

}  // namespace baton::simulator
