#pragma once

// Which sequences a decode worker computes next, and when one more may join. Pure.

#include <cstdint>
#include <span>
#include <vector>

#include "engine/step_planner.h"

namespace baton::decode_worker {

struct Limits {
  int32_t chunk_tokens = 256;  // most prefill tokens of a step
  int32_t max_batch = 64;      // most sequences of a step
};

struct RunningView {
  int32_t pending = 0;
  bool decoding = false;
  int64_t served_step = 0;  // number of the last step it was in
};

// The next step of the running sequences, oldest request first: decoding ones one token each, then
// prefill in chunks. When more decode than fit, those go first that have waited longest, and one
// place is kept for prefill, so that neither starves the other.
std::vector<engine::PlannedRange> PlanBatch(std::span<const RunningView> running,
                                            const Limits& limits);

// Whether a request that wants `blocks` more KV blocks may join `running` others when `available`
// (free and cached) are left: each of those may need one more soon, and a request that joins only
// to be preempted costs its prefill twice.
bool MayJoin(int32_t blocks, int32_t available, int32_t running);

}  // namespace baton::decode_worker
