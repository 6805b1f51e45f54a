#pragma once

// Time is injected: policies and state machines take a TimePoint, loops take a Clock. TimePoint is
// monotonic (never the wall clock), so deadlines survive clock adjustments.

#include <atomic>
#include <chrono>
#include <cstdint>

namespace baton {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

// The machine's monotonic clock. Thread-safe; lives for the whole process.
const Clock& SystemClock();

// A clock that moves only when told. Thread-safe.
class ManualClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_ns_.load())); }
  void Advance(Duration by) { now_ns_ += by.count(); }

 private:
  std::atomic<int64_t> now_ns_{0};
};

inline double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }
// Towards zero, to the nanosecond; at most 292 years either way.
inline Duration FromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// The wall clock, since 1970: for people and other programs, never for deadlines.
inline int64_t UnixMicroseconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}
inline int64_t UnixSeconds() { return UnixMicroseconds() / 1'000'000; }

}  // namespace baton
