#pragma once

// Time and chance of one simulated schedule: what happens next, and a generator that its seed
// determines. Single-threaded.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace baton::kv_transfer {

// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
inline uint64_t Mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

class Agenda {
 public:
  explicit Agenda(uint64_t seed, bool traced = false) : random_(Mix(seed)), traced_(traced) {
    entries_.reserve(64);
  }

  uint64_t Random() { return Mix(random_++); }
  uint64_t Below(uint64_t bound) { return Random() % bound; }
  bool Chance(int percent) { return percent > 0 && Below(100) < static_cast<uint64_t>(percent); }
  Duration Delay(Duration longest) {
    return Duration(static_cast<int64_t>(Below(static_cast<uint64_t>(longest.count()) + 1)));
  }

  const Clock& clock() const { return clock_; }
  TimePoint now() const { return clock_.Now(); }

  // Things due at the same time happen in the order in which they were planned.
  void After(Duration delay, std::function<void()> what) {
    entries_.push_back({now() + delay, ++planned_, std::move(what)});
    std::push_heap(entries_.begin(), entries_.end());
  }
  bool empty() const { return entries_.empty(); }
  // The time goes on to what comes next, which happens. There must be something.
  void RunNext() {
    std::pop_heap(entries_.begin(), entries_.end());
    const Entry next = std::move(entries_.back());
    entries_.pop_back();
    // What waited for in RunFor may have happened later than it was due.
    if (next.when > now()) clock_.Advance(next.when - now());
    next.what();
  }
  void RunFor(Duration duration) {
    const TimePoint end = now() + duration;
    while (!entries_.empty() && entries_.front().when <= end) RunNext();
    if (end > now()) clock_.Advance(end - now());
  }

  // For the report of a schedule that went wrong; `text` is a function, called only when traced.
  template <typename Text>
  void Trace(Text&& text) {
    if (traced_) trace_.emplace_back(now(), text());
  }
  const std::vector<std::pair<TimePoint, std::string>>& trace() const { return trace_; }

 private:
  struct Entry {
    TimePoint when;
    uint64_t order = 0;
    std::function<void()> what;
    bool operator<(const Entry& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };

  uint64_t random_;
  const bool traced_;
  ManualClock clock_;
  uint64_t planned_ = 0;
  std::vector<Entry> entries_;  // a heap, the next one first
  std::vector<std::pair<TimePoint, std::string>> trace_;
};

}  // namespace baton::kv_transfer
