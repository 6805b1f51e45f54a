#pragma once

// A fleet under a workload, event by event, with the cost model as the device: what queueing.h
// approximates, played out. Pure, and deterministic by its seed.
//
// Policies, all pure: a prompt goes to the prefill worker that will be free first, and to the
// decode worker with the fewest sequences (ties: the lower number). A prefill worker takes prompts
// first come, first served. A decode worker's step has all its sequences in it; one whose prompt is
// finished joins at the next step, if its KV to its end fits, else it waits for its turn.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/cost_model.h"
#include "planner/workload.h"

namespace baton::planner {

// Counts by value in bins of 1%, for percentiles of hundreds of millions of gaps.
class Histogram {
 public:
  void Add(double value, double count = 1);
  double count() const { return count_; }
  double mean() const { return count_ > 0 ? sum_ / count_ : 0; }
  // The upper end of the bin that percentile p (0 to 1) lies in: at most 1% too high. 0 when empty.
  double Percentile(double p) const;
  // Share of the values at or below, to the bin.
  double ShareWithin(double value) const;

 private:
  std::vector<double> bins_;
  double count_ = 0, sum_ = 0;
};

struct SimulationOptions {
  int64_t prefill = 1, decode = 1;
  // 0: the trace's, or 100,000 of a workload of numbers.
  int64_t requests = 0;
  uint64_t seed = 1;
  int64_t batch = 0;  // sequences of a decode worker at most; 0: as many as fit
};

struct SimulationResult {
  int64_t requests = 0;
  double duration_s = 0;  // from the first arrival to the last token
  double rate_per_s = 0;  // of arrivals
  Histogram wait_s;       // for a prefill worker
  Histogram ttft_s;
  Histogram itl_s;  // every gap between two tokens, the one with the handoff too
  double prefill_utilisation = 0;
  double decode_utilisation = 0;  // share of the time that decode workers step
  double mean_batch = 0;          // over steps
};

// InvalidArgument when nothing fits, when a request is longer than a decode worker's memory, or
// when the workload has no rate.
absl::StatusOr<SimulationResult> Simulate(const Deployment& deployment, const Workload& workload,
                                          const SimulationOptions& options);

}  // namespace baton::planner
