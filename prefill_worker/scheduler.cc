#include "prefill_worker/scheduler.h"

#include <algorithm>

#include "planner/cost_model.h"

namespace baton::prefill_worker {
namespace {

bool IsLong(int32_t tokens, int32_t beside) { return beside > 0 && tokens / kLong >= beside; }

}  // namespace

bool MayStart(std::span<const int32_t> pending, int32_t next, const Limits& limits) {
  int64_t tokens = 0;  // that it has to wait for
  for (const int32_t other : pending) tokens += IsLong(other, next) ? 0 : other;
  return tokens < 2 * int64_t{limits.chunk_tokens} &&
         pending.size() < static_cast<size_t>(limits.max_batch);
}

bool MayPass(std::span<const int32_t> pending, int32_t next, const Limits& limits) {
  return std::ranges::any_of(pending, [next](int32_t other) { return IsLong(other, next); }) &&
         MayStart(pending, next, limits);
}

std::vector<engine::PlannedRange> PlanChunks(std::span<const int32_t> pending,
                                             const Limits& limits) {
  std::vector<engine::PlannedRange> plan;
  for (size_t i = 0; i < pending.size() && std::ssize(plan) < limits.max_batch; ++i) {
    if (pending[i] > 0) plan.push_back({static_cast<int32_t>(i), 0});
  }
  // The shortest of those behind each.
  std::vector<int32_t> behind(plan.size(), INT32_MAX);
  for (size_t i = plan.size(); i-- > 1;) {
    behind[i - 1] = std::min(behind[i], pending[static_cast<size_t>(plan[i].sequence)]);
  }
  int32_t left = limits.chunk_tokens;
  for (size_t i = 0; i < plan.size(); ++i) {
    const int32_t wanted = pending[static_cast<size_t>(plan[i].sequence)];
    plan[i].tokens = std::min(wanted, IsLong(wanted, behind[i]) ? (left + 1) / 2 : left);
    left -= plan[i].tokens;
  }
  for (engine::PlannedRange& range : plan) {  // what the others left over
    const int32_t wanted = pending[static_cast<size_t>(range.sequence)];
    const int32_t more = std::min(wanted - range.tokens, left);
    range.tokens += more;
    left -= more;
  }
  std::erase_if(plan, [](const engine::PlannedRange& range) { return range.tokens == 0; });
  return plan;
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
