#include "prefill_worker/scheduler.h"

#include <numeric>

#include "planner/cost_model.h"

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

std::optional<double> ComputeSeconds(const DiskRead& read) {
  if (read.prefill_tokens_per_s <= 0) return std::nullopt;
  return read.tokens / read.prefill_tokens_per_s;
}

bool WorthReading(const DiskRead& read) {
  if (read.tokens <= 0) return false;
  const std::optional<double> compute_s = ComputeSeconds(read);
  if (read.disk_bytes_per_s <= 0 || !compute_s) return true;
  const double before_s = static_cast<double>(read.bytes_before) / read.disk_bytes_per_s;
  const double read_s = planner::TransferSeconds(static_cast<double>(read.kv_bytes_per_token),
                                                 read.tokens, read.disk_bytes_per_s);
  return before_s + read_s < *compute_s;
}

}  // namespace baton::prefill_worker
