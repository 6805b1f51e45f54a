#pragma once

#include <cstdint>

namespace baton::decode_worker {

// Since the start.
struct DecodeCounters {
  int64_t steps = 0;
  double step_s = 0;           // in steps, all together
  int64_t output_tokens = 0;   // sampled here, and first tokens that came with their KV
  int64_t prefill_tokens = 0;  // prompt tokens computed here
  double prefill_step_s = 0;   // in steps that computed some
  int64_t preemptions = 0;
  int64_t handoffs = 0;             // prompts whose KV came from a prefill worker
  int64_t handoffs_failed = 0;      // granted, but damaged, lost or too late
  int64_t handoffs_converted = 0;   // of `handoffs`: the prefill worker has another KV layout
  int64_t checksum_mismatches = 0;  // transfers with a block that was not the source's
  int64_t offers_missed = 0;        // no fitting offer came in time
  int64_t prefill_fallbacks = 0;    // prompts prefilled here because of either
};

}  // namespace baton::decode_worker
