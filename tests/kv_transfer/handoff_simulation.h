#pragma once

// One schedule of handoffs between two worker processes that are source and target at once, over a
// simulated network and in simulated time: a few requests, tried again with later epochs, with
// cancels and crashes at any step. Its seed determines it entirely.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/kv_transfer/simulated_worker.h"

namespace baton::kv_transfer {

// A kind of schedule. In a fair one, every handoff must succeed.
struct Scenario {
  const char* name = "";
  Adversity adversity;
  bool fair = false;
};

const std::vector<Scenario>& Scenarios();
// Schedules of scenario s have the seeds with seed % Scenarios().size() == s.
const Scenario& ScenarioOf(uint64_t seed);

class HandoffSimulation {
 public:
  enum class Fault { kCancelSource, kCancelTarget, kCrash, kShutdown, kBreakLink };
  static constexpr int kFaults = 5;

  explicit HandoffSimulation(uint64_t seed, bool traced = false);

  // Before Run: one more fault, after so many happenings.
  void Plan(uint64_t step, Fault fault) { faults_.push_back({step, fault}); }

  // Runs to the end. Empty when every law was kept; else what went wrong.
  std::string Run();

  // What the schedule came to, after Run.
  uint64_t steps() const { return steps_; }
  int handoffs() const { return static_cast<int>(stage_.handoffs.size()); }
  int succeeded() const;
  // What happened, a line each, when traced.
  std::string Trace() const;

 private:
  struct PlannedFault {
    uint64_t step = 0;  // after so many happenings
    Fault fault = Fault::kCrash;
  };
  struct Request {
    int source = 0;  // host
    int32_t blocks = 0;
    uint32_t epoch = 0;  // the newest that was tried
    int tries_put_off = 0;
  };

  void PlanFaults();
  void Do(Fault fault);
  void BeginEpoch(size_t request);
  void BeginEpochLater(size_t request, Duration delay);
  void OnSourceEnd(Handoff& handoff);
  void RunToTheEnd();
  // Whatever happened, with a good network again the next handoff succeeds.
  void ProveThatBothServe();
  void CheckEnd(size_t first_handoff, bool all_succeed);
  SimulatedWorker& Worker(int host) { return *workers_[static_cast<size_t>(host)]; }

  const Scenario& scenario_;
  Stage stage_;
  std::array<std::optional<SimulatedWorker>, kHosts> workers_;
  std::vector<Request> requests_;
  std::vector<PlannedFault> faults_;
  uint64_t steps_ = 0;
  TimePoint last_begin_;
};

}  // namespace baton::kv_transfer
