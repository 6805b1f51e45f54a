#pragma once

// What a worker's steps computed and how long they took, summed up for routers.

#include <span>

#include "common/clock.h"
#include "engine/executor.h"
#include "worker_link/commands.h"

namespace baton::worker_common {

class StepMeter {
 public:
  // Before the step is computed: it moves the sequences on.
  void Begin(std::span<const engine::StepRange> ranges);
  void End(Duration took);

  const worker_link::StepTotals& totals() const { return totals_; }

 private:
  worker_link::StepTotals totals_;
};

}  // namespace baton::worker_common
