#include "router/key_meter.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"
#include "router/error_code.h"

namespace baton::router {
namespace {

constexpr double kMinute = 60;
constexpr double kDay = 86'400;
// A slot frees when one of the key's own requests ends: nobody knows when.
constexpr Duration kSlotPause = std::chrono::seconds(1);

void SetBucket(std::optional<TokenBucket>& bucket, double per_second, double capacity,
               TimePoint now) {
  if (per_second <= 0) {
    bucket.reset();
  } else if (bucket) {
    bucket->Change(per_second, capacity, now);
  } else {
    bucket.emplace(per_second, capacity);
  }
}

absl::Status OverLimit(const std::string& text, Duration retry_after) {
  return WithRetryAfter(absl::ResourceExhaustedError(text), retry_after);
}

}  // namespace

KeyMeter::KeyMeter(const KeyLimits& limits) { SetLimits(limits, TimePoint{}); }

void KeyMeter::SetLimits(const KeyLimits& limits, TimePoint now) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  const double rate = limits.requests_per_second;
  SetBucket(requests_, rate, std::max(1.0, rate), now);  // a second's worth may come at once
  SetBucket(minute_, static_cast<double>(limits.tokens_per_minute) / kMinute,
            static_cast<double>(limits.tokens_per_minute), now);
  SetBucket(day_, static_cast<double>(limits.tokens_per_day) / kDay,
            static_cast<double>(limits.tokens_per_day), now);
}

absl::Status KeyMeter::CheckLocked(TimePoint now) {
  if (limits_.concurrent_requests > 0 && usage_.running >= limits_.concurrent_requests) {
    return OverLimit(fmt::format("this API key has {} requests running, its limit is {}",
                                 usage_.running, limits_.concurrent_requests),
                     kSlotPause);
  }
  if (day_) {
    if (const Duration wait = day_->Until(1, now); wait > Duration::zero()) {
      return WithErrorCode(OverLimit(fmt::format("this API key has used its {} tokens a day",
                                                 limits_.tokens_per_day),
                                     wait),
                           kInsufficientQuota);
    }
  }
  if (minute_) {
    if (const Duration wait = minute_->Until(1, now); wait > Duration::zero()) {
      return OverLimit(
          fmt::format("this API key has used its {} tokens a minute", limits_.tokens_per_minute),
          wait);
    }
  }
  if (!requests_) return absl::OkStatus();
  const Duration wait = requests_->Until(1, now);
  if (wait == Duration::zero()) return absl::OkStatus();
  return OverLimit(fmt::format("this API key sends more than its {} requests a second",
                               limits_.requests_per_second),
                   wait);
}

absl::Status KeyMeter::Enter(TimePoint now) {
  const std::lock_guard lock(mutex_);
  const absl::Status status = CheckLocked(now);
  ++(status.ok() ? usage_.requests : usage_.refused);
  BATON_RETURN_IF_ERROR(status);
  ++usage_.running;
  if (requests_) requests_->Take(1, now);
  return absl::OkStatus();
}

void KeyMeter::Leave() {
  const std::lock_guard lock(mutex_);
  --usage_.running;
}

void KeyMeter::Charge(int64_t tokens, TimePoint now) {
  const std::lock_guard lock(mutex_);
  usage_.tokens += static_cast<uint64_t>(tokens);
  if (minute_) minute_->Take(static_cast<double>(tokens), now);
  if (day_) day_->Take(static_cast<double>(tokens), now);
}

KeyMeter::Usage KeyMeter::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

}  // namespace baton::router
