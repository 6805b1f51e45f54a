#include "planner/recent_traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace baton::planner {
namespace {

// Prompts of no more than so many times each other's length.
constexpr double kAlike = 3;
constexpr size_t kEnoughAlike = 8;

}  // namespace

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
  Entry* const entry = Find(request);
  if (entry != nullptr) entry->ended = true;
  if (output_tokens < 1) return;
  ended_.push_back(
      {.input_tokens = entry != nullptr ? entry->input_tokens : 0, .output_tokens = output_tokens});
  if (ended_.size() > kEnded) ended_.pop_front();
}

void RecentTraffic::OnGone(uint64_t request) {
  if (Entry* const entry = Find(request)) entry->ended = true;
}

RecentTraffic::Waiting RecentTraffic::WaitingAt(double now_s) const {
  Waiting waiting;
  for (const Entry& entry : entries_) {
    if (entry.ended || entry.output_tokens > 0) continue;
    if (waiting.requests++ == 0) waiting.longest_s = std::max(0.0, now_s - entry.arrival_s);
  }
  return waiting;
}

absl::StatusOr<Workload> RecentTraffic::Window(double now_s, size_t least_requests,
                                               double since_s) const {
  const double from_s = std::max(since_s, now_s - options_.window_s);
  size_t first = 0;
  while (first < entries_.size() && entries_[first].arrival_s < from_s) ++first;
  while (entries_.size() - first > options_.enough_requests &&
         entries_[first].arrival_s < now_s - options_.short_window_s) {
    ++first;
  }
  return From(first, now_s, least_requests);
}

absl::StatusOr<Workload> RecentTraffic::Newest(double now_s, size_t least_requests) const {
  size_t first = entries_.size();
  while (first > 0 && entries_[first - 1].arrival_s >= now_s - options_.window_s &&
         (entries_.size() - first < options_.newest_requests ||
          entries_[first - 1].arrival_s >= now_s - options_.newest_s)) {
    --first;
  }
  return From(first, now_s, least_requests);
}

// From what the requests from `first` on can expect.
AnswerLengths RecentTraffic::LengthsOf(size_t first) const {
  std::vector<int32_t> prompts;
  for (size_t i = first; i < entries_.size(); ++i) prompts.push_back(entries_[i].input_tokens);
  const auto middle = prompts.begin() + std::ssize(prompts) / 2;
  std::nth_element(prompts.begin(), middle, prompts.end());
  const double usual = *middle;
  const auto alike = [&](int32_t prompt_tokens) {
    return prompt_tokens <= kAlike * usual && prompt_tokens * kAlike >= usual;
  };
  std::vector<AnswerSoFar> answers, all_answers;
  for (const Entry& entry : entries_) {
    all_answers.push_back(
        {.tokens = static_cast<double>(entry.output_tokens), .ended = entry.ended});
    if (alike(entry.input_tokens)) answers.push_back(all_answers.back());
  }
  std::vector<double> before, all_before;
  for (const Ended& ended : ended_) {
    all_before.push_back(ended.output_tokens);
    if (ended.input_tokens == 0 || alike(ended.input_tokens)) before.push_back(ended.output_tokens);
  }
  if (answers.size() < kEnoughAlike) return AnswerLengths(all_answers, all_before);
  return AnswerLengths(answers, before.size() < kEnoughAlike ? all_before : before);
}

absl::StatusOr<Workload> RecentTraffic::From(size_t first, double now_s,
                                             size_t least_requests) const {
  int32_t most_tokens = 0;
  for (size_t i = first; i < entries_.size(); ++i) {
    most_tokens = std::max(most_tokens, entries_[i].output_tokens);
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
  const AnswerLengths lengths = LengthsOf(first);
  Workload workload;
  for (size_t i = first; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const double output = entry.ended ? entry.output_tokens : lengths.Expected(entry.output_tokens);
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
