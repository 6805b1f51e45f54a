#include "simulator/checked_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace baton::simulator {
namespace {

constexpr int64_t kMostRequests = 100'000'000;
constexpr int64_t kMostWorkers = 100'000;
constexpr int64_t kDefaultRequests = 100'000;

}  // namespace

absl::StatusOr<int64_t> CheckedRequests(const SimulatedWorker& worker,
                                        const planner::Workload& workload,
                                        const SimulationOptions& options) {
  if (workload.requests.empty() || !(workload.arrivals.per_s > 0)) {
    return absl::InvalidArgumentError("the workload has no requests or no rate to simulate");
  }
  if (options.decode < 1 || options.prefill < 0 ||
      std::max(options.prefill, options.decode) > kMostWorkers) {
    return absl::InvalidArgumentError(
        fmt::format("{} prefill and {} decode workers: must be 0 to {} and 1 to {}",
                    options.prefill, options.decode, kMostWorkers, kMostWorkers));
  }
  if (!(options.faster > 0) || !std::isfinite(options.faster)) {
    return absl::InvalidArgumentError(
        fmt::format("{} times as fast: must be above 0 and finite", options.faster));
  }
  double longest = 0;
  for (const planner::RequestLength& r : workload.requests) {
    longest = std::max(longest, r.input_tokens + r.output_tokens);
  }
  const double held = static_cast<double>(worker.kv_blocks) * worker.block_tokens;
  if (longest + 2 * worker.block_tokens > held) {
    return absl::InvalidArgumentError(fmt::format(
        "a request of {:.0f} tokens does not fit: a worker's memory holds the KV of {:.0f}",
        longest, held));
  }
  const auto own = static_cast<int64_t>(workload.arrival_s.size());
  const int64_t requests =
      options.requests > 0 ? options.requests : (own > 0 ? own : kDefaultRequests);
  if (requests < 2 || requests > kMostRequests) {
    return absl::InvalidArgumentError(
        fmt::format("{} requests: must be 2 to {}", requests, kMostRequests));
  }
  return requests;
}

}  // namespace baton::simulator
