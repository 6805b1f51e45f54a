#include "text/jinja/budget.h"

#include <fmt/format.h>

#include "common/status_macros.h"

namespace baton::text::jinja {

absl::Status Budget::Spend(uint64_t steps) {
  if (steps > kMaxSteps - spent_) {
    spent_ = kMaxSteps;
    return absl::ResourceExhaustedError(
        fmt::format("the chat template takes more than {} steps", kMaxSteps));
  }
  spent_ += steps;
  return absl::OkStatus();
}

absl::Status Budget::SpendOnBytes(uint64_t bytes) {
  if (bytes > kMaxTextBytes) {
    return absl::ResourceExhaustedError(
        fmt::format("the chat template makes a text of {} bytes, at most {} are allowed", bytes,
                    kMaxTextBytes));
  }
  return Spend(1 + bytes / kBytesPerStep);
}

}  // namespace baton::text::jinja
