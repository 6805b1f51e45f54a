#pragma once

// What one rendering may use: steps, and bytes in one string. A template is data from a model file,
// so it must not be able to hold a thread or the memory.

#include <cstdint>

#include "absl/status/status.h"

namespace baton::text::jinja {

// Not thread-safe; one per rendering.
class Budget {
 public:
  static constexpr uint64_t kMaxSteps = 4'000'000;
  static constexpr uint64_t kMaxTextBytes = uint64_t{32} << 20;
  static constexpr uint64_t kBytesPerStep = 64;

  // ResourceExhausted once more than kMaxSteps are spent. One step is about one operation on one
  // value.
  absl::Status Spend(uint64_t steps);
  // Before `bytes` of text are made or searched.
  absl::Status SpendOnBytes(uint64_t bytes);

 private:
  uint64_t spent_ = 0;
};

}  // namespace baton::text::jinja
