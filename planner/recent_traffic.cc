#include "planner/recent_traffic.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::planner {

void RecentTraffic::OnArrival(double now_s, uint64_t request, int32_t input_tokens) {
  if (!entries_.empty()) now_s = std::max(now_s, entries_.back().arrival_s);
  numbers_[request] = first_ + entries_.size();
  entries_.push_back({.request = request, .arrival_s = now_s, .input_tokens = input_tokens});
  while (entries_.size() > options_.most_requests ||
         entries_.front().arrival_s < now_s - options_.window_s) {
    numbers_.erase(entries_.front().request);
    entries_.pop_front();
    ++first_;
  }
}

RecentTraffic::Entry* RecentTraffic::Find(uint64_t request) {
  const auto found = numbers_.find(request);
  return found == numbers_.end() ? nullptr : &entries_[found->second - first_];
}

void RecentTraffic::OnFirstToken(uint64_t request, int32_t cached_tokens) {
  Entry* const entry = Find(request);
  if (entry == nullptr) return;
  entry->cached_tokens = std::clamp(cached_tokens, 0, std::max(0, entry->input_tokens - 1));
  entry->output_tokens = std::max(entry->output_tokens, 1);
}

void RecentTraffic::OnProgress(uint64_t request, int32_t output_tokens) {
  Entry* const entry = Find(request);
  if (entry != nullptr) entry->output_tokens = std::max(entry->output_tokens, output_tokens);
}

void RecentTraffic::OnEnd(uint64_t request, int32_t output_tokens) {
  OnProgress(request, output_tokens);
  if (Entry* const entry = Find(request)) entry->ended = true;
  if (output_tokens < 1) return;
  ended_.push_back(output_tokens);
  if (ended_.size() > kEnded) ended_.pop_front();
}

absl::StatusOr<Workload> RecentTraffic::Window(double now_s, size_t least_requests) const {
  Workload workload;
  double most_tokens = 0;
  size_t first = 0;
  while (first < entries_.size() && entries_[first].arrival_s < now_s - options_.window_s) ++first;
  while (entries_.size() - first > options_.enough_requests &&
         entries_[first].arrival_s < now_s - options_.short_window_s) {
    ++first;
  }
  for (size_t i = first; i < entries_.size(); ++i) {
    most_tokens = std::max<double>(most_tokens, entries_[i].output_tokens);
  }
  const size_t count = entries_.size() - first;
  if (count < std::max<size_t>(least_requests, 2)) {
    return absl::FailedPreconditionError(
        fmt::format("{} requests in the last {:.0f} s: at least {} are needed", count,
                    options_.window_s, std::max<size_t>(least_requests, 2)));
  }
  if (most_tokens < 1 && ended_.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("none of the last {} requests has got a token yet", count));
  }
  for (size_t i = first; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    double output = entry.output_tokens;
    if (!entry.ended) {
      const double another = ended_.empty() ? most_tokens : ended_[i % ended_.size()];
      output = std::max(output, another);
    }
    const double input = std::max(1, entry.input_tokens);
    workload.requests.push_back({.input_tokens = input,
                                 .output_tokens = std::max(1.0, output),
                                 .cached_share = entry.cached_tokens / input});
    workload.arrival_s.push_back(entry.arrival_s);
  }
  const double span_s = std::max(now_s - workload.arrival_s.front(), 1e-3);
  workload.arrivals = {.per_s = static_cast<double>(count) / span_s,
                       .scv = Dispersion(workload.arrival_s)};
  return workload;
}

}  // namespace baton::planner
