#include "simulator/live_control.h"

#include <fmt/format.h>

#include <string>

namespace baton::simulator {

using worker_link::Role;

planner::MeasuredWorker MeasuredOf(const SimulatedWorker& worker) {
  return {.step_s = worker.step_s,
          .kv_tokens = static_cast<double>(worker.kv_blocks) * worker.block_tokens,
          .chunk_tokens = worker.chunk_tokens,
          .max_batch = worker.max_batch};
}

LiveControl::LiveControl(const SimulatedWorker& worker, const planner::ControlOptions& options)
    : worker_(MeasuredOf(worker)), options_(options) {}

void LiveControl::OnArrival(double now_s, int64_t request, int32_t input_tokens) {
  traffic_.OnArrival(now_s, static_cast<uint64_t>(request), input_tokens);
}

void LiveControl::OnFirstToken(double, int64_t request, int32_t cached_tokens) {
  traffic_.OnFirstToken(static_cast<uint64_t>(request), cached_tokens);
}

void LiveControl::OnEnd(double, int64_t request, int32_t output_tokens) {
  traffic_.OnEnd(static_cast<uint64_t>(request), output_tokens);
}

void LiveControl::OnProgress(int64_t request, int32_t output_tokens) {
  traffic_.OnProgress(static_cast<uint64_t>(request), output_tokens);
}

std::vector<RoleChange> LiveControl::Decide(const FleetView& fleet) {
  planner::ControlSnapshot snapshot{
      .now_s = fleet.now_s,
      .traffic = traffic_.Window(fleet.now_s, kLeastRequests, state_.traffic_since_s),
      .newest = traffic_.Newest(fleet.now_s, kLeastRequests),
      .worker = worker_};
  const planner::RecentTraffic::Waiting waiting = traffic_.WaitingAt(fleet.now_s);
  snapshot.waiting = waiting.requests;
  snapshot.longest_wait_s = waiting.longest_s;
  for (size_t i = 0; i < fleet.workers.size(); ++i) {
    const FleetView::Worker& worker = fleet.workers[i];
    snapshot.workers.push_back({.name = fmt::format("{:06}", i),
                                .prefill = worker.role == Role::kPrefill,
                                .usable = !worker.draining,
                                .changing = worker.draining,
                                .requests = worker.requests});
  }
  planner::ControlDecision decision = planner::Decide(snapshot, options_, &state_);
  std::vector<RoleChange> changes;
  for (const std::string& name : decision.workers) {
    changes.push_back({std::stoul(name), decision.to_prefill ? Role::kPrefill : Role::kDecode});
  }
  if (decision.action != planner::ControlAction::kHold) {
    changes_.push_back({fleet.now_s, std::move(decision)});
  }
  return changes;
}

}  // namespace baton::simulator
