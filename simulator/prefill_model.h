#pragma once

// A prefill worker of a simulation: prefill_worker/scheduler.h decides, the cost model computes.
// What its loop does beside that (prefill_worker/loop.h) is done here as there: a prompt starts
// with all its KV blocks or waits, offers them when it starts, and keeps them until they are taken.

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "prefill_worker/scheduler.h"
#include "simulator/prefix_cache.h"
#include "simulator/request_source.h"
#include "simulator/simulated_worker.h"

namespace baton::simulator {

struct PrefillJob {
  int64_t request = 0;
  int32_t tokens = 0;         // of the prompt
  int32_t cached_tokens = 0;  // found when it started
  int32_t done_tokens = 0;    // with KV, cached ones among them
  int32_t fetched_tokens =
      0;                    // with KV from another prefill worker, its own cached ones among them
  double cached_share = 0;  // of the prompt, where `prefix` does not tell
  std::span<const int64_t> prefix;
  int64_t prefix_round = 0;
  int32_t last_chunk_tokens = 0;  // of its last step
  bool begun = false;
};

class PrefillModel {
 public:
  // `worker` outlives it. `prefix_block_tokens`: of the blocks that `prefix` names.
  PrefillModel(const SimulatedWorker* worker, int32_t prefix_block_tokens);

  void Add(PrefillJob job) { waiting_.push_back(job); }

  // The next step, if none runs and there is something to compute.
  struct Step {
    double seconds = 0;
    std::vector<int64_t> started;  // requests that took their blocks: their offers go out
    std::vector<int64_t> begun;    // requests that are in a step for the first time
  };
  std::optional<Step> BeginStep(double now_s);
  // Prompts that are complete; their blocks are held until Release.
  std::vector<PrefillJob> EndStep();
  void Release(const PrefillJob& job);
  PrefixCache::Changes TakeCacheChanges() { return cache_.TakeChanges(); }

  bool stepping() const { return stepping_; }
  bool quiet() const { return waiting_.empty() && computing_.empty() && held_blocks_ == 0; }
  int32_t held_blocks() const { return held_blocks_; }
  double busy_s() const { return busy_s_; }
  double last_step_s() const { return step_s_; }
  double tokens_per_s() const { return busy_s_ > 0 ? computed_tokens_ / busy_s_ : 0; }
  // Not computed yet, of a step that runs by the time that it has run.
  double RemainingTokens(double now_s) const;
  // Leading tokens of the prompt that are cached here.
  int32_t CachedTokens(const PrefillJob& job);

 private:
  void StartWaiting(std::vector<int64_t>* started);
  std::optional<size_t> NextToStart() const;

  const SimulatedWorker* const worker_;
  const int32_t prefix_block_tokens_;
  const prefill_worker::Limits limits_;
  std::deque<PrefillJob> waiting_;
  std::vector<PrefillJob> computing_;
  std::vector<engine::PlannedRange> plan_;  // of the step that runs
  PrefixCache cache_;
  int32_t held_blocks_ = 0;
  bool stepping_ = false;
  double step_began_s_ = 0, step_s_ = 0;
  double busy_s_ = 0, computed_tokens_ = 0;
};

}  // namespace baton::simulator
