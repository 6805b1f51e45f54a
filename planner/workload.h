#pragma once

// The traffic that a plan is for: how many requests, how bursty, how long, how much of a prompt is
// cached. From a few numbers, or from a trace. Pure.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/queueing.h"

namespace baton::planner {

struct TraceRequest {
  double arrival_s = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<int64_t> prefix_blocks;  // ids of the prompt's blocks from its start; may be empty
  int64_t cached_tokens = 0;           // of the prompt; only where prefix_blocks is empty
};

struct Trace {
  std::vector<TraceRequest> requests;
  int64_t block_tokens = 0;  // of prefix_blocks
};

struct RequestLength {
  double input_tokens = 0;
  double output_tokens = 0;
  double cached_share = 0;  // of the prompt, with an unbounded prefix cache
};

// Share of all prompt tokens that a prefix cache of this size has, least recently used going first.
struct HitPoint {
  double cache_tokens = 0;
  double hit_share = 0;
};

struct Workload {
  // per_s 0: not known. scv: the index of dispersion of counts in windows of 10 s, which is the
  // squared coefficient of variation for times that are independent, and grows with bursts.
  Arrivals arrivals;
  // All equally likely; of a trace every request, in order.
  std::vector<RequestLength> requests;
  std::vector<double> arrival_s;      // of a trace: when each came; else empty
  std::vector<HitPoint> prefix_hits;  // by cache size; empty: hits do not depend on it
  // Of a trace that tells them: ids of each prompt's blocks, and the tokens of a block.
  std::vector<std::vector<int64_t>> prefix_blocks;
  int64_t block_tokens = 0;

  double MeanInput() const;
  double MeanOutput() const;
  // Of unbounded hits those that a cache of `cache_tokens` gives, in [0, 1].
  double HitsKept(double cache_tokens) const;
};

// Variance over mean of the number of arrivals in windows of 10 s, or a tenth of the time; at least
// one time, ascending. 1 where all come at once.
double Dispersion(std::span<const double> arrival_s);

struct WorkloadNumbers {
  double rate_per_s = 0;
  double arrival_scv = 1;
  double input_tokens = 0, input_cv = 0;  // coefficients of variation; lognormal where above 0
  double output_tokens = 0, output_cv = 0;
  double prefix_hit_share = 0;
};

// InvalidArgument names the number that makes no sense. Lengths are 512 quantiles of each
// distribution, paired so that neither tells anything of the other.
absl::StatusOr<Workload> WorkloadOf(const WorkloadNumbers& numbers);

// InvalidArgument for a trace of less than two requests, of no duration, or out of order. Requests
// that came at the same tick of a coarse clock are spread evenly to the next one.
absl::StatusOr<Workload> WorkloadOf(const Trace& trace);

}  // namespace baton::planner
