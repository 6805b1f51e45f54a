#pragma once

// From traffic, objectives and hardware to a plan: how many prefill and decode workers, how busy
// they are, what first tokens and gaps between tokens take at a percentile, what binds, what one
// more of each would bring, what remains when one is lost, and whether workers that do both would
// do better. Pure and deterministic.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/pools.h"
#include "planner/ratio.h"

namespace baton::planner {

struct Objectives {
  double percentile = 0.99;
  double ttft_s = 0;  // 0: twice what that percentile of prompts takes alone
  double itl_s = 0;   // between tokens; 0: any
};

struct PlanRequest {
  Deployment deployment;
  Workload
      workload;  // arrivals.per_s 0: the rate that keeps `batch` sequences in each decode worker
  Objectives objectives;
  int64_t batch = 0;    // of a decode worker at most; 0: as many as fit
  int64_t prefill = 0;  // workers; 0: to be found
  int64_t decode = 0;
  // Workers of the whole fleet, to be split for the most goodput; 0: as few as meet the objectives.
  int64_t fleet_workers = 0;
};

enum class Resource { kPrefillFlops, kDecodeHbmBytes, kDecodeHbmBandwidth, kLinks };
inline constexpr int kResources = 4;
const char* ResourceName(Resource resource);  // "prefill FLOPs"

struct ResourceUse {
  double utilisation = 0;     // at the plan's rate
  double max_rate_per_s = 0;  // if nothing else bound
  double shadow_price = 0;  // requests a second of goodput gained by one more worker's share of it
};

struct Plan {
  RatioAnswer ratio;  // of the mean request at this plan's batch
  double rate_per_s = 0;
  bool rate_from_batch = false;  // the rate was not given
  int64_t prefill = 0, decode = 0;
  int64_t batch_limit = 0;
  double mean_batch = 0;
  double ttft_slo_s = 0, itl_slo_s = 0;                              // itl_slo_s infinite: any
  double ttft_p50_s = 0, ttft_p99_s = 0, ttft_slo_percentile_s = 0;  // infinite: diverges
  double itl_p50_s = 0, itl_p99_s = 0;
  // The largest rate with both objectives met at the percentile.
  double goodput_per_s = 0;
  ResourceUse resources[kResources];
  Resource binding = Resource::kPrefillFlops;  // of which one more share brings the most
  double kv_bytes_per_s = 0;                   // all KV that moves
  double transfer_s = 0;            // of a mean prompt's KV, if it did not overlap with prefill
  double local_prefill_tokens = 0;  // prompts this short may stay with the decode worker
  double goodput_less_prefill = 0;  // with one prefill worker less
  double goodput_less_decode = 0;
  MixedPool mixed;  // the same number of workers, each doing both
  bool disaggregate = true;
  double chip_seconds_per_million_tokens = 0;  // input and output, at the plan's rate
  std::vector<std::string> findings;           // what a person should know first
};

// InvalidArgument with the numbers when nothing fits, when no number of workers meets the
// objectives, or when the fleet is too small to split.
absl::StatusOr<Plan> MakePlan(const PlanRequest& request);

// Goodput of every split up to these many workers of each kind: [prefill - 1][decode - 1].
std::vector<std::vector<double>> GoodputGrid(const PlanRequest& request, int64_t prefill,
                                             int64_t decode);

// The objectives that MakePlan uses, defaults filled in.
double TtftObjective(const PlanRequest& request);
double ItlObjective(const PlanRequest& request);

}  // namespace baton::planner
