#pragma once

// A rate with some slack, as a pure function of the time.

#include <algorithm>

#include "common/clock.h"

namespace baton::router {

// Fills at `per_second` up to `capacity`. Not thread-safe.
class TokenBucket {
 public:
  TokenBucket(double per_second, double capacity) : per_second_(per_second), capacity_(capacity) {}

  // May go below zero: what was not known beforehand is paid afterwards.
  void Take(double amount, TimePoint now) {
    Fill(now);
    level_ -= amount;
  }

  // Until at least `amount` is there; zero when it is.
  Duration Until(double amount, TimePoint now) {
    Fill(now);
    if (level_ >= amount) return Duration::zero();
    return std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>((amount - level_) / per_second_));
  }

  // Another rate from now on; what was used stays used.
  void Change(double per_second, double capacity, TimePoint now) {
    Fill(now);
    level_ += capacity - capacity_;
    per_second_ = per_second;
    capacity_ = capacity;
  }

  double level() const { return level_; }

 private:
  void Fill(TimePoint now) {
    if (!begun_) level_ = capacity_;
    if (begun_ && now > last_) {
      level_ = std::min(capacity_, level_ + per_second_ * Seconds(now - last_));
    }
    if (!begun_ || now > last_) last_ = now;
    begun_ = true;
  }

  double per_second_;
  double capacity_;
  double level_ = 0;
  bool begun_ = false;
  TimePoint last_{};
};

}  // namespace baton::router
