#pragma once

// A fleet under a workload, event by event: the router's own placement and the workers' own
// schedulers, with the cost model as the device. What queueing.h approximates, played out. Pure,
// and deterministic by its seed.
//
// Left out: the network's delays but for KV, detokenizing, failures, tenants (one queue, first come
// first served), and KV that a decode worker has cached.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/workload.h"
#include "simulator/histogram.h"
#include "simulator/simulated_worker.h"
#include "worker_link/commands.h"

namespace baton::simulator {

// The fleet as who controls it sees it.
struct FleetView {
  struct Worker {
    worker_link::Role role = worker_link::Role::kDecode;
    bool draining = false;  // or changing its role
    int32_t requests = 0;
  };
  double now_s = 0;
  std::span<const Worker> workers;
};
struct RoleChange {
  size_t worker = 0;
  worker_link::Role role = worker_link::Role::kDecode;
};
// Told of all that comes and ends; asked for a change now and then.
class FleetControl {
 public:
  virtual ~FleetControl() = default;
  virtual void OnArrival(double now_s, int64_t request, int32_t input_tokens) = 0;
  virtual void OnFirstToken(double now_s, int64_t request, int32_t cached_tokens) = 0;
  virtual void OnEnd(double now_s, int64_t request, int32_t output_tokens) = 0;
  // Before each Decide, of all that decode: tokens so far.
  virtual void OnProgress(int64_t request, int32_t output_tokens) = 0;
  virtual std::vector<RoleChange> Decide(const FleetView& fleet) = 0;
};

struct SimulationOptions {
  int64_t prefill = 1, decode = 1;  // no prefill workers: the decode workers prefill too
  // 0: the trace's, or 100,000 of a workload of numbers.
  int64_t requests = 0;
  uint64_t seed = 1;
  double faster = 1;  // requests come so many times as fast as the workload says
  int32_t local_prefill_tokens = 0;
  bool exact_load = false;               // simulated_router.h
  double ttft_slo_s = 0, itl_slo_s = 0;  // 0: any
  FleetControl* control = nullptr;
  double control_every_s = 5;
  double grace_s = 30;  // that streams have where a worker changes its role
};

struct SimulationResult {
  int64_t requests = 0;
  double duration_s = 0;  // from the first arrival to the last token
  double rate_per_s = 0;  // of arrivals
  Histogram wait_s;       // from arrival to the first step with some of its prompt
  Histogram ttft_s;
  Histogram itl_s;  // every gap between two tokens, the one with the handoff too
  // Requests whose first token came within its objective, and whose gaps are so on average.
  int64_t good_requests = 0;
  double prefill_utilisation = 0;
  double decode_utilisation = 0;  // share of the time that decode workers step
  double mean_batch = 0;          // over decode steps
  double cached_share = 0;        // of all prompt tokens that prefill workers got
  double fetched_share = 0;       // of these: from another prefill worker
  int64_t preemptions = 0;
  int64_t role_changes = 0;
  int64_t moved = 0;  // streams that a role change moved
};

// InvalidArgument when a request is longer than a worker's memory, when numbers are out of range,
// or when the workload has no rate.
absl::StatusOr<SimulationResult> Simulate(const SimulatedWorker& worker,
                                          const planner::Workload& workload,
                                          const SimulationOptions& options);

}  // namespace baton::simulator
