#include "planner/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <unordered_map>

#include "common/status_macros.h"

namespace baton::planner {
namespace {

constexpr double kDispersionWindowS = 10;

// Inverse of the standard normal distribution by bisection on erfc: exact enough, and short.
double NormalQuantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

// Quantile p of a lognormal distribution with this mean and coefficient of variation.
double LognormalQuantile(double mean, double cv, double p) {
  if (cv <= 0) return mean;
  const double variance = std::log1p(cv * cv);
  return mean * std::exp(std::sqrt(variance) * NormalQuantile(p) - variance / 2);
}

absl::Status CheckRange(const char* name, double value, double from, double to) {
  if (value >= from && value <= to) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must be {} to {}", name, value, from, to));
}

// A prefix cache of `capacity` blocks that counts what it has of each prompt. A block is there with
// all before it, so a prompt hits up to its first block that is not.
class BlockCache {
 public:
  explicit BlockCache(size_t capacity) : capacity_(capacity) {}

  size_t Serve(const std::vector<int64_t>& blocks) {
    size_t hits = 0;
    bool prefix = true;
    for (const int64_t block : blocks) {
      const auto found = where_.find(block);
      if (found == where_.end()) {
        prefix = false;
        order_.push_front(block);
        where_[block] = order_.begin();
        if (order_.size() > capacity_) {
          where_.erase(order_.back());
          order_.pop_back();
        }
      } else {
        if (prefix) ++hits;
        order_.splice(order_.begin(), order_, found->second);
      }
    }
    return hits;
  }

 private:
  const size_t capacity_;
  std::list<int64_t> order_;
  std::unordered_map<int64_t, std::list<int64_t>::iterator> where_;
};

double CachedTokens(const TraceRequest& request, size_t hits, int64_t block_tokens) {
  const double tokens = static_cast<double>(hits) * static_cast<double>(block_tokens);
  return std::max(0.0, std::min(tokens, static_cast<double>(request.input_tokens - 1)));
}

void MeasurePrefixHits(const Trace& trace, Workload* workload) {
  size_t blocks = 0;
  double inputs = 0;
  for (const TraceRequest& request : trace.requests) {
    blocks += request.prefix_blocks.size();
    inputs += static_cast<double>(request.input_tokens);
  }
  if (blocks == 0 || trace.block_tokens < 1) return;
  workload->block_tokens = trace.block_tokens;
  for (const TraceRequest& request : trace.requests) {
    workload->prefix_blocks.push_back(request.prefix_blocks);
  }
  for (size_t capacity = 256; capacity < 4 * blocks; capacity *= 4) {
    BlockCache cache(capacity);
    double cached = 0;
    for (size_t i = 0; i < trace.requests.size(); ++i) {
      const TraceRequest& request = trace.requests[i];
      const double tokens =
          CachedTokens(request, cache.Serve(request.prefix_blocks), trace.block_tokens);
      cached += tokens;
      // The largest cache comes last, and forgets nothing.
      workload->requests[i].cached_share = tokens / static_cast<double>(request.input_tokens);
    }
    workload->prefix_hits.push_back(
        {.cache_tokens = static_cast<double>(capacity) * static_cast<double>(trace.block_tokens),
         .hit_share = cached / inputs});
  }
}

// Times of one tick are spread evenly over the time to the next.
std::vector<double> SpreadTicks(const Trace& trace) {
  std::vector<double> times;
  const auto& requests = trace.requests;
  for (size_t i = 0; i < requests.size();) {
    size_t next = i;
    while (next < requests.size() && requests[next].arrival_s == requests[i].arrival_s) ++next;
    const double tick =
        next < requests.size() ? requests[next].arrival_s - requests[i].arrival_s : 0;
    for (size_t k = i; k < next; ++k) {
      const double share = static_cast<double>(k - i) / static_cast<double>(next - i);
      times.push_back(requests[i].arrival_s + tick * share);
    }
    i = next;
  }
  return times;
}

}  // namespace

double Dispersion(std::span<const double> arrival_s) {
  const double first = arrival_s.front();
  const double duration = arrival_s.back() - first;
  if (!(duration > 0)) return 1;
  const double window = std::min(kDispersionWindowS, duration / 10);
  const auto windows = static_cast<size_t>(duration / window);
  std::vector<double> counts(windows, 0);
  for (const double at : arrival_s) {
    const auto index = static_cast<size_t>((at - first) / window);
    if (index < windows) ++counts[index];
  }
  const ServiceTimes moments = ServiceOf(counts);
  return std::clamp(moments.scv * moments.mean_s, 1e-3, 1e4);
}

double Workload::MeanInput() const {
  double sum = 0;
  for (const RequestLength& request : requests) sum += request.input_tokens;
  return sum / static_cast<double>(requests.size());
}

double Workload::MeanOutput() const {
  double sum = 0;
  for (const RequestLength& request : requests) sum += request.output_tokens;
  return sum / static_cast<double>(requests.size());
}

double Workload::HitsKept(double cache_tokens) const {
  if (prefix_hits.empty() || prefix_hits.back().hit_share <= 0) return 1;
  HitPoint before;
  for (const HitPoint& point : prefix_hits) {
    if (cache_tokens < point.cache_tokens) {
      const double share =
          (cache_tokens - before.cache_tokens) / (point.cache_tokens - before.cache_tokens);
      const double hits = before.hit_share + share * (point.hit_share - before.hit_share);
      return std::clamp(hits / prefix_hits.back().hit_share, 0.0, 1.0);
    }
    before = point;
  }
  return 1;
}

absl::StatusOr<Workload> WorkloadOf(const WorkloadNumbers& numbers) {
  constexpr int kQuantiles = 512;
  BATON_RETURN_IF_ERROR(CheckRange("the rate", numbers.rate_per_s, 0, 1e9));
  BATON_RETURN_IF_ERROR(CheckRange("the arrivals' scv", numbers.arrival_scv, 1e-3, 1e4));
  BATON_RETURN_IF_ERROR(CheckRange("the input", numbers.input_tokens, 1, 1e9));
  BATON_RETURN_IF_ERROR(CheckRange("the output", numbers.output_tokens, 1, 1e9));
  BATON_RETURN_IF_ERROR(CheckRange("the input's variation", numbers.input_cv, 0, 10));
  BATON_RETURN_IF_ERROR(CheckRange("the output's variation", numbers.output_cv, 0, 10));
  BATON_RETURN_IF_ERROR(CheckRange("the prefix hit share", numbers.prefix_hit_share, 0, 0.99));
  Workload workload{.arrivals = {.per_s = numbers.rate_per_s, .scv = numbers.arrival_scv}};
  const bool constant = numbers.input_cv == 0 && numbers.output_cv == 0;
  const int count = constant ? 1 : kQuantiles;
  for (int i = 0; i < count; ++i) {
    const double p = (i + 0.5) / count;
    // Multiples of the golden section: evenly spread, in an order unlike p's.
    const double other = std::fmod((i + 0.5) * 0.6180339887498949, 1.0);
    workload.requests.push_back(
        {.input_tokens =
             std::max(1.0, LognormalQuantile(numbers.input_tokens, numbers.input_cv, p)),
         .output_tokens = std::max(1.0, LognormalQuantile(numbers.output_tokens, numbers.output_cv,
                                                          std::clamp(other, 1e-4, 1 - 1e-4))),
         .cached_share = numbers.prefix_hit_share});
  }
  return workload;
}

absl::StatusOr<Workload> WorkloadOf(const Trace& trace) {
  if (trace.requests.size() < 2) {
    return absl::InvalidArgumentError(fmt::format(
        "the trace has {} requests: at least 2 are needed for a rate", trace.requests.size()));
  }
  Workload workload;
  double last = trace.requests.front().arrival_s;
  for (const TraceRequest& request : trace.requests) {
    if (!(request.arrival_s >= last)) {
      return absl::InvalidArgumentError(
          fmt::format("the trace is out of order: a request at {} s after one at {} s",
                      request.arrival_s, last));
    }
    last = request.arrival_s;
    workload.requests.push_back(
        {.input_tokens = std::max(1.0, static_cast<double>(request.input_tokens)),
         .output_tokens = std::max(1.0, static_cast<double>(request.output_tokens)),
         .cached_share = CachedTokens(request, 1, request.cached_tokens) /
                         std::max(1.0, static_cast<double>(request.input_tokens))});
  }
  workload.arrival_s = SpreadTicks(trace);
  const double duration = workload.arrival_s.back() - workload.arrival_s.front();
  if (duration <= 0) {
    return absl::InvalidArgumentError(
        fmt::format("all {} requests of the trace come at once: there is no rate in it",
                    trace.requests.size()));
  }
  workload.arrivals = {.per_s = static_cast<double>(trace.requests.size() - 1) / duration,
                       .scv = Dispersion(workload.arrival_s)};
  MeasurePrefixHits(trace, &workload);
  return workload;
}

}  // namespace baton::planner
