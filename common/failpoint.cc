#include "common/failpoint.h"

#include <fmt/format.h>
#include <signal.h>

#include <charconv>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/logging.h"
#include "common/nearest_name.h"

namespace baton {
namespace {

constexpr int64_t kMostDelayMs = 600'000;
constexpr int64_t kMostCount = 1'000'000'000;

std::optional<int64_t> NumberIn(std::string_view text, int64_t most) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (number < 1 || number > most) return std::nullopt;
  return number;
}

}  // namespace

absl::Status Failpoint::Arm(std::string_view setting) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(fmt::format("failpoint {}={}: {}", name_, setting, why));
  };
  std::string_view action = setting;
  int64_t count = 0;
  if (const size_t colon = setting.rfind(':'); colon != std::string_view::npos) {
    const auto number = NumberIn(setting.substr(colon + 1), kMostCount);
    if (!number) return refuse(fmt::format("COUNT must be from 1 to {}", kMostCount));
    count = *number;
    action = setting.substr(0, colon);
  }
  constexpr std::string_view kDelayPrefix = "delay=";
  Action chosen = Action::kNone;
  if (action == "kill") {
    chosen = Action::kKill;
  } else if (action == "stop") {
    chosen = Action::kStop;
  } else if (action == "fail") {
    if (can_fail_ == CanFail::kNo) return refuse("this step cannot be left out");
    chosen = Action::kFail;
  } else if (action.starts_with(kDelayPrefix)) {
    const auto delay = NumberIn(action.substr(kDelayPrefix.size()), kMostDelayMs);
    if (!delay) return refuse(fmt::format("a delay must be from 1 to {} ms", kMostDelayMs));
    chosen = Action::kDelay;
    delay_ms_ = *delay;
  } else {
    return refuse("ACTION must be kill, stop, delay=MS or fail");
  }
  count_ = count;
  reached_ = 0;
  action_ = chosen;
  return absl::OkStatus();
}

bool Failpoint::Act() {
  const int64_t times = ++reached_;
  if (count_ != 0 && times != count_) return false;
  const Action action = action_.load(std::memory_order_relaxed);
  LogWarning(fmt::format("failpoint {} acts, reached for the {}. time", name_, times));
  switch (action) {
    // To this thread: it goes no further than here.
    case Action::kKill:
      raise(SIGKILL);
      break;
    case Action::kStop:
      raise(SIGSTOP);
      break;
    case Action::kDelay:
      std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms_));
      break;
    case Action::kFail:
    case Action::kNone:
      break;
  }
  return action == Action::kFail;
}

absl::Status ArmFailpoint(std::string_view setting, std::span<Failpoint* const> known) {
  const size_t equals = setting.find('=');
  if (equals == std::string_view::npos) {
    return absl::InvalidArgumentError(
        fmt::format("failpoint '{}' is not NAME=ACTION[:COUNT]", setting));
  }
  const std::string_view name = setting.substr(0, equals);
  std::vector<std::string> names;
  for (Failpoint* const failpoint : known) {
    if (failpoint->name() == name) return failpoint->Arm(setting.substr(equals + 1));
    names.emplace_back(failpoint->name());
  }
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(
      nearest.empty() ? fmt::format("no failpoint '{}'; there are {}", name, fmt::join(names, ", "))
                      : fmt::format("no failpoint '{}'; did you mean '{}'?", name, nearest));
}

}  // namespace baton
