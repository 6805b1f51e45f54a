#pragma once

// Named places at which a process can be made to die, stop, dawdle or fail, for tests of what the
// others do then. Nothing happens at a place that is not armed, and no product code arms one: only
// the flag --failpoint does (docs/development.md).
//
// Threading: Reach from any thread; Arm before the threads that reach the place start.

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace baton {

class Failpoint {
 public:
  // kNone is that of a place that is not armed.
  enum class Action { kNone, kKill, kStop, kDelay, kFail };
  // Whether the step at this place can be left out by kFail.
  enum class CanFail { kNo, kYes };

  // `name` lives as long as the failpoint.
  constexpr explicit Failpoint(std::string_view name, CanFail can_fail = CanFail::kNo)
      : name_(name), can_fail_(can_fail) {}
  Failpoint(const Failpoint&) = delete;
  Failpoint& operator=(const Failpoint&) = delete;

  std::string_view name() const { return name_; }

  // The place is reached. True when the step must be left out. One relaxed load when not armed;
  // kDelay blocks the caller, kStop until SIGCONT.
  [[nodiscard]] bool Fails() {
    return action_.load(std::memory_order_relaxed) != Action::kNone && Act();
  }
  // The same where kFail is refused.
  void Reach() { static_cast<void>(Fails()); }

  // `setting` is ACTION[:COUNT], ACTION one of kill (SIGKILL to this process), stop (SIGSTOP to
  // it), delay=MS (1 to 600,000) and fail. With COUNT (from 1) only the COUNT-th time that the
  // place is reached counts, without it every time. InvalidArgument for anything else.
  absl::Status Arm(std::string_view setting);

 private:
  bool Act();

  const std::string_view name_;
  const CanFail can_fail_;
  std::atomic<Action> action_ = Action::kNone;
  int64_t delay_ms_ = 0;
  int64_t count_ = 0;  // 0: every time
  std::atomic<int64_t> reached_ = 0;
};

// Arms what `setting`, NAME=ACTION[:COUNT], names among `known`. InvalidArgument for an unknown
// name, with the nearest one, and for what Arm refuses.
absl::Status ArmFailpoint(std::string_view setting, std::span<Failpoint* const> known);

}  // namespace baton
