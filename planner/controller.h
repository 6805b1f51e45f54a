#pragma once

// Live control: whether a running fleet should change its ratio, or its size, and why. A pure
// function of what is seen and of what was decided before; it asks pools.h what each split of the
// workers carries of the traffic that came last.
//
// It changes little and late: not while anything changes or drains; not soon after a change; only
// when the same change looked better several times in a row, by more than a little; never when the
// present split carries enough; and never so that the loss of one more worker is not survived.
//
// Not so while requests are late already, and what came last is clearly more than the present split
// carries: then it changes at the first look. What waits while it hesitates has to be served, too,
// and at a high load that takes many times as long.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/plan.h"
#include "planner/pools.h"

namespace baton::planner {

struct ControlWorker {
  std::string name;
  bool prefill = false;   // else it decodes
  bool usable = false;    // connected, and takes work
  bool changing = false;  // drains, or takes another role
  int32_t requests = 0;
};

struct ControlSnapshot {
  double now_s = 0;
  std::vector<ControlWorker> workers;
  // Of the last minutes, or why there is none.
  absl::StatusOr<Workload> traffic = absl::UnavailableError("no traffic is known");
  // The same of the last seconds alone; and requests that wait for their first token.
  absl::StatusOr<Workload> newest = absl::UnavailableError("no traffic is known");
  int64_t waiting = 0;
  double longest_wait_s = 0;
  MeasuredWorker worker;
  double uncertainty = 0;  // half the 95% interval of a usual step's time, as a share of it
};

struct ControlOptions {
  Objectives objectives;
  double gain = 0.15;      // at least so much more goodput
  double enough = 1.5;     // a split that carries so many times the traffic stays
  int confirm = 3;         // times in a row
  double cooldown_s = 30;  // after a change
  // While requests are late: after a change; and what waits is to be served within that time beside
  // what comes.
  double urgent_cooldown_s = 3;
  double catch_up_s = 20;
  double most_uncertainty = 0.5;
  int64_t least_prefill = 1;
  int64_t least_decode = 2;  // 1 in a fleet of two
  // Replicas of each role up to which it may grow, and down to which it may shrink; 0: as it is.
  int64_t most_workers = 0;
  int64_t least_workers = 0;
  double shrink_at = 2.5;  // one worker less carries so many times the traffic
};

struct ControlState {
  double changed_s = -std::numeric_limits<double>::infinity();  // when it began to last
  bool to_prefill = false;                                      // the last flip
  // What came before tells nothing any more.
  double traffic_since_s = -std::numeric_limits<double>::infinity();
  int64_t leaning = 0;  // prefill workers more or less, that would be better
  int64_t growing = 0;  // workers more or less
  int seen = 0;         // times in a row
};

enum class ControlAction { kHold, kFlip, kGrow, kShrink };
const char* ControlActionName(ControlAction action);

struct ControlDecision {
  ControlAction action = ControlAction::kHold;
  std::vector<std::string> workers;  // kFlip: that change their role
  bool to_prefill = false;  // kFlip, kGrow, kShrink: of which role there is one more or less
  int64_t prefill = 0, decode = 0;  // as it is now
  int64_t new_prefill = 0, new_decode = 0;
  double rate_per_s = 0;
  double goodput_per_s = 0;      // of the split of now
  double new_goodput_per_s = 0;  // of the better one
  bool urgent = false;           // requests were late: not confirmed
  std::string reason;            // one line, with the numbers
};

// `state` is that of the call before; what is decided is taken to be done.
ControlDecision Decide(const ControlSnapshot& snapshot, const ControlOptions& options,
                       ControlState* state);

}  // namespace baton::planner
