#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>

#include "common/clock.h"

namespace baton::discovery {

// How long to wait after failed tries: not at all while another endpoint is untried, then longer
// and longer; and which failures are worth a log line. Pure.
class Outage {
 public:
  static constexpr Duration kFirstPause = std::chrono::milliseconds(100);
  static constexpr Duration kLongestPause = std::chrono::seconds(2);

  explicit Outage(size_t endpoints) : endpoints_(endpoints) {}

  // True for the first failure of each endpoint, and then less and less often.
  bool OnFailure() {
    ++failures_;
    return failures_ <= endpoints_ ||
           (failures_ % endpoints_ == 0 && std::has_single_bit(failures_ / endpoints_));
  }
  // True when it had failed before.
  bool OnSuccess() { return std::exchange(failures_, 0) > 0; }
  Duration Pause() const {
    if (failures_ == 0 || failures_ % endpoints_ != 0) return Duration::zero();
    const size_t rounds = std::min<size_t>(failures_ / endpoints_, 10);
    return std::min(kFirstPause * (int64_t{1} << (rounds - 1)), kLongestPause);
  }

 private:
  const size_t endpoints_;
  size_t failures_ = 0;
};

}  // namespace baton::discovery
