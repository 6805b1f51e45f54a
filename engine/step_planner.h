#pragma once

// What the next step computes: chunked prefill and continuous batching, as a pure function.

#include <cstdint>
#include <span>
#include <vector>

namespace baton::engine {

// A running sequence as the planner sees it. `pending` tokens have no KV yet: 1 in decode, more in
// prefill.
struct PlanSequence {
  int32_t pending = 0;
  bool decoding = false;
};

struct PlanLimits {
  int32_t max_rows = 512;      // token budget of the step
  int32_t chunk_tokens = 256;  // most prefill tokens of one step, all sequences together
  int32_t max_sequences = 64;  // most sequences of one step (each may want logits)
};

struct PlannedRange {
  int32_t sequence = 0;  // index into the input
  int32_t tokens = 0;    // how many of its pending tokens, from the first
};

// Decoding sequences come first, one token each, in input order (the loop rotates its list when
// there are more than fit), then prefill in input order, chunk_tokens in all. Every range has at
// least one token; sequence order of the result is ascending.
std::vector<PlannedRange> PlanStep(std::span<const PlanSequence> sequences,
                                   const PlanLimits& limits);

}  // namespace baton::engine
