#include "simulator/prefill_model.h"

#include <algorithm>
#include <cmath>

#include "router/placement.h"

namespace baton::simulator {

using prefill_worker::MayPass;
using prefill_worker::MayStart;

PrefillModel::PrefillModel(const SimulatedWorker* worker, int32_t prefix_block_tokens)
    : worker_(worker),
      prefix_block_tokens_(prefix_block_tokens),
      limits_{.chunk_tokens = worker->chunk_tokens, .max_batch = worker->max_batch} {}

int32_t PrefillModel::CachedTokens(const PrefillJob& job) {
  double cached = job.cached_share * job.tokens;
  if (prefix_block_tokens_ > 0) {
    cached = static_cast<double>(cache_.Match(job.prefix, job.prefix_round)) * prefix_block_tokens_;
  }
  return static_cast<int32_t>(std::min(cached, job.tokens - 1.0));  // the last is always computed
}

std::optional<size_t> PrefillModel::NextToStart() const {
  if (waiting_.empty()) return std::nullopt;
  std::vector<int32_t> pending;
  pending.reserve(computing_.size());
  for (const PrefillJob& job : computing_) pending.push_back(job.tokens - job.done_tokens);
  if (MayStart(pending, waiting_.front().tokens, limits_)) return 0;
  for (size_t i = 1; i < waiting_.size(); ++i) {
    if (MayPass(pending, waiting_[i].tokens, limits_)) return i;
  }
  return std::nullopt;
}

void PrefillModel::StartWaiting(std::vector<int64_t>* started) {
  while (const std::optional<size_t> next = NextToStart()) {
    PrefillJob job = waiting_[*next];
    const auto blocks =
        static_cast<int32_t>(router::BlocksNeeded(worker_->block_tokens, job.tokens - 1));
    if (held_blocks_ + blocks > worker_->kv_blocks) return;
    held_blocks_ += blocks;
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(*next));
    job.cached_tokens = job.done_tokens = std::max(CachedTokens(job), job.fetched_tokens);
    started->push_back(job.request);
    computing_.push_back(job);
  }
}

std::optional<PrefillModel::Step> PrefillModel::BeginStep(double now_s) {
  if (stepping_) return std::nullopt;
  Step step;
  StartWaiting(&step.started);
  if (computing_.empty()) return std::nullopt;
  std::vector<int32_t> pending;
  for (const PrefillJob& job : computing_) pending.push_back(job.tokens - job.done_tokens);
  plan_ = PlanChunks(pending, limits_);
  std::vector<planner::PromptRange> ranges;
  for (const engine::PlannedRange& range : plan_) {
    PrefillJob& job = computing_[static_cast<size_t>(range.sequence)];
    if (!job.begun) step.begun.push_back(job.request);
    job.begun = true;
    ranges.push_back({.tokens = static_cast<double>(range.tokens),
                      .before_tokens = static_cast<double>(job.done_tokens)});
    computed_tokens_ += range.tokens;
  }
  step.seconds = worker_->step_s({.prompts = ranges});
  stepping_ = true;
  step_began_s_ = now_s;
  step_s_ = step.seconds;
  busy_s_ += step.seconds;
  return step;
}

std::vector<PrefillJob> PrefillModel::EndStep() {
  std::vector<PrefillJob> complete;
  for (const engine::PlannedRange& range : plan_) {
    PrefillJob& job = computing_[static_cast<size_t>(range.sequence)];
    job.done_tokens += range.tokens;
    job.last_chunk_tokens = range.tokens;
    if (job.done_tokens == job.tokens) complete.push_back(job);
  }
  std::erase_if(computing_, [](const PrefillJob& job) { return job.done_tokens == job.tokens; });
  plan_.clear();
  stepping_ = false;
  return complete;
}

void PrefillModel::Release(const PrefillJob& job) {
  held_blocks_ -= static_cast<int32_t>(router::BlocksNeeded(worker_->block_tokens, job.tokens - 1));
  if (prefix_block_tokens_ <= 0) return;
  const int64_t spare_tokens =
      int64_t{worker_->kv_blocks - held_blocks_} * int64_t{worker_->block_tokens};
  cache_.Put(job.prefix, job.prefix_round,
             static_cast<size_t>(spare_tokens / prefix_block_tokens_));
}

double PrefillModel::RemainingTokens(double now_s) const {
  double tokens = 0;
  for (const PrefillJob& job : waiting_) tokens += job.tokens;
  for (const PrefillJob& job : computing_) tokens += job.tokens - job.done_tokens;
  if (!stepping_ || step_s_ <= 0) return tokens;
  const double done = std::clamp((now_s - step_began_s_) / step_s_, 0.0, 1.0);
  for (const engine::PlannedRange& range : plan_) tokens -= done * range.tokens;
  return tokens;
}

}  // namespace baton::simulator
