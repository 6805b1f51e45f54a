#pragma once

// Live control of the fleet's ratio: planner/controller.h over what this router sees, on a thread
// of its own. It learns from workers' reports what steps take, looks at the requests of the last
// minutes, and every few seconds says what should change and why; or changes it.
//
// One router of a fleet acts; several would undo each other's changes. Which, is configuration, or
// etcd says it.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "discovery/leadership.h"
#include "planner/controller.h"
#include "planner/step_learner.h"
#include "router/dispatcher.h"
#include "router/plan_executor.h"
#include "router/traffic_watch.h"

namespace baton::router {

enum class ControlMode { kOff, kAdvise, kAct };
const char* ControlModeName(ControlMode mode);

struct FleetControlOptions {
  ControlMode mode = ControlMode::kOff;
  planner::ControlOptions control;
  Duration every = std::chrono::seconds(2);   // a decision
  Duration grace = std::chrono::seconds(30);  // that streams have where a role changes
  size_t least_requests = 20;                 // to tell the traffic
  std::shared_ptr<PlanExecutor> executor;     // null: the fleet's size stays
  std::shared_ptr<const discovery::Leadership>
      leadership;  // null: this one acts, if `mode` says so
};

// What it needs of the router. Thread-safe functions that do not block.
struct FleetHandle {
  std::function<std::vector<WorkerView>()> fleet;
  std::function<absl::Status(const DutyChange&)> set_duty;
};

class FleetControl {
 public:
  static constexpr size_t kRemembered = 64;  // decisions that were changes
  static constexpr Duration kLearnEvery = std::chrono::seconds(1);

  FleetControl(const FleetControlOptions& options, FleetHandle handle);
  ~FleetControl();
  FleetControl(const FleetControl&) = delete;
  FleetControl& operator=(const FleetControl&) = delete;

  TrafficWatch& watch() { return watch_; }
  // Begins the thread; without it the two below are called by the owner (tests).
  void Start();
  // Ends it, before what `handle` needs goes.
  void Stop();

  // Takes in what workers have reported since.
  void Learn();
  // One decision, logged, and acted on if it is to be.
  planner::ControlDecision DecideOnce(double now_s);

  std::string Json() const;  // of /admin/plan

 private:
  struct Remembered {
    int64_t at_us = 0;  // wall clock
    planner::ControlDecision decision;
    std::string outcome;  // "advised", "done", who leads instead, or what went wrong
  };

  void Run();
  planner::ControlSnapshot Snapshot(double now_s) const;
  std::string Outcome(const planner::ControlDecision& decision);
  std::string Act(const planner::ControlDecision& decision);
  absl::Status Scale(const planner::ControlDecision& decision);

  const FleetControlOptions options_;
  const FleetHandle handle_;
  TrafficWatch watch_;

  planner::ControlState state_;                          // of the thread that decides
  std::map<std::string, worker_link::StepTotals> seen_;  // by worker's address, likewise
  std::atomic<double> traffic_since_s_ = planner::ControlState{}.traffic_since_s;

  mutable std::mutex mutex_;  // guards the next five
  std::condition_variable changed_;
  bool stopping_ = false;
  planner::StepLearner learner_;
  planner::ControlDecision last_;
  std::deque<Remembered> remembered_;  // newest first

  std::thread thread_;
};

}  // namespace baton::router
