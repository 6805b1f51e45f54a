#pragma once

// Which prompts a prefill worker computes next. Pure.
//
// Prompts start in the order of their arrival, each with all its KV blocks, and the oldest takes as
// much of a step's token budget as it has tokens for: among equals, first come first served gives
// the shortest mean time to first token.
//
// Unequal ones share: beside a prompt that has at least kLong times as many tokens to compute, a
// short one that comes later starts at once, and gets half of each step. So a prompt of 100,000
// tokens does not hold up the others, and takes at most twice as long for them.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/step_planner.h"

namespace baton::prefill_worker {

struct Limits {
  int32_t chunk_tokens = 256;  // token budget of a step
  int32_t max_batch = 64;      // most prompts of a step
};

inline constexpr int32_t kLong = 4;

// Whether one more prompt, of `next` tokens, may start beside those that have `pending` tokens to
// compute. A prompt starts one step before its turn: its offer is then answered while others
// compute, but it does not hold blocks here and on its target for long.
bool MayStart(std::span<const int32_t> pending, int32_t next, const Limits& limits);

// Whether it may start before older ones that wait and may not: it takes its turns from a long
// prompt then, not from them.
bool MayPass(std::span<const int32_t> pending, int32_t next, const Limits& limits);

// The next step of the started prompts with `pending` tokens each, oldest first.
std::vector<engine::PlannedRange> PlanChunks(std::span<const int32_t> pending,
                                             const Limits& limits);

struct DiskRead {
  int32_t tokens = 0;  // whose KV would be read
  int64_t kv_bytes_per_token = 0;
  int64_t bytes_before = 0;         // of reads that go first
  double disk_bytes_per_s = 0;      // as measured; 0: not yet
  double prefill_tokens_per_s = 0;  // likewise
};

// What computing the tokens would take, in seconds. Empty before that was measured.
std::optional<double> ComputeSeconds(const DiskRead& read);

// Whether reading the KV takes less time than computing it. What was not measured yet counts as
// fast enough to try: that is how it is measured.
bool WorthReading(const DiskRead& read);

}  // namespace baton::prefill_worker
