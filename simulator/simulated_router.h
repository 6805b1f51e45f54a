#pragma once

// The router of a simulation: router/placement.h and router/room.h decide, on what
// router/registry.h knows of its workers, which is what it has open there and what they said last.

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "router/held_prefix.h"
#include "router/placement.h"
#include "router/prompts_under_way.h"
#include "simulator/prefix_cache.h"
#include "simulator/simulated_worker.h"

namespace baton::simulator {

class SimulatedRouter {
 public:
  struct Options {
    int32_t local_prefill_tokens = 0;
    // What waits at a prefill worker is known to the token, instead of by the prompts that are open
    // there; and no request waits in the router. Nobody can know that: it tells what it would
    // bring.
    bool exact_load = false;
    int32_t prefix_block_tokens = 0;
  };
  SimulatedRouter(const SimulatedWorker* worker, const Options& options);

  router::WorkerId AddWorker(worker_link::Role role);
  void SetRole(router::WorkerId worker, worker_link::Role role);
  void SetDraining(router::WorkerId worker, bool draining);
  // What a worker reports.
  void SetFreeBlocks(router::WorkerId worker, int32_t blocks);
  void SetPrefillRate(router::WorkerId worker, double tokens_per_s);
  void SetBlocks(router::WorkerId worker, const PrefixCache::Changes& changes);
  void SetQueued(router::WorkerId worker, double tokens);  // with exact_load only

  // Whether one more request may go to the workers now.
  bool HasRoom() const;
  struct Prompt {
    int32_t tokens = 0;
    std::span<const int64_t> prefix;
    int64_t prefix_round = 0;
  };
  // Opens shares at the workers that it names.
  router::Placement Place(const Prompt& prompt);
  void Release(router::WorkerId worker, int32_t prompt_tokens);
  // A prefill worker has computed a prompt that was placed there.
  void EndPrompt(const Prompt& prompt, router::WorkerId prefill);

  const std::vector<router::WorkerSnapshot>& workers() const { return workers_; }

 private:
  std::vector<uint64_t> KeysOf(const Prompt& prompt) const;
  void FindHeld(const Prompt& prompt);
  void Open(router::WorkerId worker, int32_t prompt_tokens);

  struct Account {
    int64_t open_tokens = 0;
    int64_t open_blocks = 0;
    int32_t free_blocks = 0;
  };
  void Refresh(router::WorkerId worker);

  const SimulatedWorker* const worker_;
  const Options options_;
  std::vector<router::WorkerSnapshot> workers_;
  std::vector<Account> accounts_;
  uint64_t last_chosen_ = 0;
  // Of the blocks of simulator/prefix_cache.h; ascending ids.
  std::unordered_map<uint64_t, std::vector<router::WorkerId>> holders_;
  router::HeldPrefixes held_;  // of the prompt that is being placed
  router::PromptsUnderWay under_way_;
};

}  // namespace baton::simulator
