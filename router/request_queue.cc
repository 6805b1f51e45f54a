#include "router/request_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "common/status_macros.h"
#include "router/error_code.h"

namespace baton::router {
namespace {

constexpr double kMemoryS = 10;  // what is older hardly counts
constexpr Duration kUnknown = std::chrono::seconds(1);
constexpr Duration kLongest = std::chrono::seconds(60);

}  // namespace

void DrainRate::Decay(TimePoint now) {
  if (now <= last_) return;
  weight_ *= std::exp(-Seconds(now - last_) / kMemoryS);
  last_ = now;
}

void DrainRate::Count(TimePoint now) {
  if (!first_) first_ = last_ = now;
  Decay(now);
  ++weight_;
}

Duration DrainRate::TimeFor(size_t ahead, TimePoint now) {
  if (!first_) return kUnknown;
  Decay(now);
  // An even flow of r a second has the weight r * kMemoryS once it has lasted long.
  const double lasted_s = std::max(Seconds(now - *first_), 1e-3);
  const double per_second = weight_ / (kMemoryS * (1 - std::exp(-lasted_s / kMemoryS)));
  const double seconds = static_cast<double>(ahead) / std::max(per_second, 1e-9);
  if (seconds >= Seconds(kLongest)) return kLongest;
  return FromSeconds(seconds);
}

absl::Status RequestQueue::FullLocked(TimePoint now) const {
  return WithRetryAfter(
      absl::ResourceExhaustedError(fmt::format("{} requests wait for the fleet, the limit is {}",
                                               queue_.size(), max_waiting_)),
      rate_.TimeFor(queue_.size(), now));
}

absl::Status RequestQueue::CheckRoom(TimePoint now) const {
  if (max_waiting_ == 0 || size_ < static_cast<size_t>(max_waiting_)) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  return FullLocked(now);
}

absl::Status RequestQueue::TooMany(size_t running, int32_t limit, TimePoint now) const {
  const std::lock_guard lock(mutex_);
  return WithRetryAfter(absl::ResourceExhaustedError(fmt::format(
                            "the router has {} requests, its limit is {}", running, limit)),
                        rate_.TimeFor(queue_.size() + 1, now));
}

absl::Status RequestQueue::Push(QueuedRequest request, TimePoint now) {
  const std::lock_guard lock(mutex_);
  if (max_waiting_ > 0 && queue_.size() >= static_cast<size_t>(max_waiting_)) {
    return FullLocked(now);
  }
  const size_t before = queue_.Before(request);
  const Duration wait = rate_.TimeFor(before, now);
  if (before > 0 && now + wait > request.deadline) {
    return WithRetryAfter(
        absl::ResourceExhaustedError(fmt::format(
            "{} requests wait for the fleet, {} of them before this one, {:.1f} s at its pace, but "
            "the request's deadline is in {:.1f} s",
            queue_.size(), before, Seconds(wait), Seconds(request.deadline - now))),
        wait);
  }
  queue_.Push(std::move(request));
  size_ = queue_.size();
  return absl::OkStatus();
}

void RequestQueue::PushAgain(QueuedRequest request) {
  const std::lock_guard lock(mutex_);
  queue_.Push(std::move(request));
  size_ = queue_.size();
}

std::optional<uint64_t> RequestQueue::Pop() {
  const std::lock_guard lock(mutex_);
  const std::optional<uint64_t> handle = queue_.Pop();
  size_ = queue_.size();
  return handle;
}

bool RequestQueue::Remove(uint64_t handle) {
  if (empty()) return false;
  const std::lock_guard lock(mutex_);
  const bool removed = queue_.Remove(handle);
  size_ = queue_.size();
  return removed;
}

std::vector<uint64_t> RequestQueue::TakeExpired(TimePoint now) {
  if (empty()) return {};
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> expired = queue_.TakeExpired(now);
  size_ = queue_.size();
  return expired;
}

void RequestQueue::CountEnding(TimePoint now) {
  const std::lock_guard lock(mutex_);
  rate_.Count(now);
}

std::string RequestQueue::MetricsText() const {
  const std::lock_guard lock(mutex_);
  std::string text =
      "# HELP baton_queue_requests Requests that wait in the router for their turn.\n"
      "# TYPE baton_queue_requests gauge\n";
  for (size_t i = 0; i < kPriorities; ++i) {
    const auto priority = static_cast<Priority>(i);
    fmt::format_to(std::back_inserter(text), "baton_queue_requests{{priority=\"{}\"}} {}\n",
                   PriorityName(priority), queue_.size(priority));
  }
  fmt::format_to(std::back_inserter(text),
                 "# HELP baton_queue_prompt_tokens The tokens of their prompts.\n"
                 "# TYPE baton_queue_prompt_tokens gauge\nbaton_queue_prompt_tokens {}\n",
                 queue_.tokens());
  return text;
}

}  // namespace baton::router
