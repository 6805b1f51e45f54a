#pragma once

#include <cstdint>

namespace baton::prefill_worker {

// Since the start.
struct PrefillCounters {
  int64_t steps = 0;
  double step_s = 0;             // in steps, all together
  int64_t prompt_tokens = 0;     // computed
  int64_t cached_tokens = 0;     // taken from the prefix cache instead
  int64_t prompts = 0;           // prefilled to their end
  int64_t prefixes_fetched = 0;  // from other prefill workers
  int64_t prefix_tokens_fetched = 0;
  int64_t prefix_bytes_fetched = 0;
  // Prefixes that were asked for and not got: computed here.
  int64_t prefixes_not_offered = 0;  // no offer came
  int64_t prefixes_refused = 0;      // offered, but of another prompt, or no longer worth it
  int64_t prefixes_failed = 0;       // granted, but damaged, lost or too late
  int64_t checksum_mismatches = 0;   // transfers with a block that was not the source's
  int64_t prefixes_served = 0;       // to other prefill workers
  int64_t disk_tokens = 0;           // read from disk instead of being computed
  int64_t disk_reads_late = 0;       // given up: the disk took too long
  int64_t handoffs = 0;              // the target has everything
  int64_t handoffs_failed = 0;  // refused, lost or too late; not those that the router cancelled
};

}  // namespace baton::prefill_worker
