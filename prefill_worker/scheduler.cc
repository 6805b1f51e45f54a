#include "prefill_worker/scheduler.h"

#include <numeric>

namespace baton::prefill_worker {

bool MayStart(std::span<const int32_t> pending, const Limits& limits) {
  const int64_t tokens = std::accumulate(pending.begin(), pending.end(), int64_t{0});
  return tokens < 2 * int64_t{limits.chunk_tokens} &&
         pending.size() < static_cast<size_t>(limits.max_batch);
}

std::vector<engine::PlannedRange> PlanChunks(std::span<const int32_t> pending,
                                             const Limits& limits) {
  std::vector<engine::PlanSequence> prompts;
  prompts.reserve(pending.size());
  for (const int32_t tokens : pending) prompts.push_back({.pending = tokens, .decoding = false});
  return engine::PlanStep(prompts, {.max_rows = limits.chunk_tokens,
                                    .chunk_tokens = limits.chunk_tokens,
                                    .max_sequences = limits.max_batch});
}

}  // namespace baton::prefill_worker
