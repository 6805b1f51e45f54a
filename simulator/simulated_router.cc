#include "simulator/simulated_router.h"

#include <algorithm>
#include <cmath>

#include "router/room.h"

namespace baton::simulator {

using router::WorkerId;
using router::WorkerSnapshot;

SimulatedRouter::SimulatedRouter(const SimulatedWorker* worker, const Options& options)
    : worker_(worker), options_(options) {}

WorkerId SimulatedRouter::AddWorker(worker_link::Role role) {
  const auto id = static_cast<WorkerId>(workers_.size());
  workers_.push_back({.id = id,
                      .role = role,
                      .connected = true,
                      .max_sequences = worker_->max_batch,
                      .blocks_total = worker_->kv_blocks,
                      .block_tokens = worker_->block_tokens,
                      .kv_bytes_per_token = std::llround(worker_->kv_bytes_per_token),
                      .kv_bytes_per_s = worker_->kv_bytes_per_s});
  accounts_.push_back({.free_blocks = worker_->kv_blocks});
  Refresh(id);
  return id;
}

void SimulatedRouter::SetRole(WorkerId worker, worker_link::Role role) {
  workers_[worker].role = role;
}

void SimulatedRouter::SetDraining(WorkerId worker, bool draining) {
  workers_[worker].draining = draining;
}

void SimulatedRouter::SetFreeBlocks(WorkerId worker, int32_t blocks) {
  accounts_[worker].free_blocks = blocks;
  Refresh(worker);
}

void SimulatedRouter::SetPrefillRate(WorkerId worker, double tokens_per_s) {
  workers_[worker].prefill_tokens_per_s = tokens_per_s;
}

void SimulatedRouter::SetQueued(WorkerId worker, double tokens) {
  workers_[worker].prompt_tokens_queued = std::llround(tokens);
}

void SimulatedRouter::Refresh(WorkerId worker) {
  WorkerSnapshot& snapshot = workers_[worker];
  const Account& account = accounts_[worker];
  if (!options_.exact_load) snapshot.prompt_tokens_queued = account.open_tokens;
  snapshot.blocks_available =
      std::min<int64_t>(account.free_blocks, snapshot.blocks_total - account.open_blocks);
}

bool SimulatedRouter::HasRoom() const {
  if (options_.exact_load) return true;
  router::FleetRoom fleet;
  for (const WorkerSnapshot& worker : workers_) {
    if (!worker.connected || worker.draining) continue;
    fleet.Add(worker);
    if (fleet.decided()) return true;
  }
  return fleet.room();
}

void SimulatedRouter::SetBlocks(WorkerId worker, const PrefixCache::Changes& changes) {
  for (const uint64_t key : changes.added) {
    std::vector<WorkerId>& holders = holders_[key];
    holders.insert(std::ranges::lower_bound(holders, worker), worker);
  }
  for (const uint64_t key : changes.dropped) {
    const auto found = holders_.find(key);
    std::erase(found->second, worker);
    if (found->second.empty()) holders_.erase(found);
  }
}

// What router/prefix_index.h finds by hashes of tokens.
void SimulatedRouter::FindHeld(const Prompt& prompt) {
  held_.Clear();
  if (options_.prefix_block_tokens <= 0) return;
  std::vector<WorkerId> have_all;  // blocks so far
  for (size_t i = 0; i < prompt.prefix.size(); ++i) {
    const auto found = holders_.find(PrefixCache::KeyOf(prompt.prefix[i], prompt.prefix_round));
    if (found == holders_.end()) return;
    if (i == 0) {
      have_all = found->second;
    } else {
      std::erase_if(have_all, [&](WorkerId worker) {
        return !std::ranges::binary_search(found->second, worker);
      });
    }
    const auto tokens = static_cast<int64_t>(i + 1) * options_.prefix_block_tokens;
    for (const WorkerId worker : have_all) {
      held_.RaiseMemory(worker, static_cast<int32_t>(std::min<int64_t>(tokens, prompt.tokens)));
    }
    if (have_all.empty()) return;
  }
}

// What router/prompts_under_way.h makes of tokens, of the ids of the blocks that they lie in: an id
// stands for all tokens up to its block's end.
std::vector<uint64_t> SimulatedRouter::KeysOf(const Prompt& prompt) const {
  std::vector<uint64_t> keys;
  if (options_.prefix_block_tokens <= 0) return keys;
  const auto block_tokens = static_cast<size_t>(options_.prefix_block_tokens);
  for (size_t end = size_t{router::kFirstKeyTokens}; end <= static_cast<size_t>(prompt.tokens);
       end *= 2) {
    const size_t block = (end - 1) / block_tokens;
    if (block >= prompt.prefix.size()) break;
    uint64_t key = static_cast<uint64_t>(prompt.prefix[block]) * 64 + keys.size();
    key += static_cast<uint64_t>(prompt.prefix_round) * 0x9E3779B97F4A7C15;
    keys.push_back(key);
  }
  return keys;
}

router::Placement SimulatedRouter::Place(const Prompt& prompt) {
  const std::vector<uint64_t> keys = KeysOf(prompt);
  const router::PromptsUnderWay::Found expected = under_way_.Find(keys);
  FindHeld(prompt);
  const router::PlacementRequest request{.prompt_tokens = prompt.tokens,
                                         .local_prefill_tokens = options_.local_prefill_tokens,
                                         .held = held_.all(),
                                         .expected_at = expected.worker,
                                         .expected_tokens = expected.tokens};
  router::Placement placement = router::Place(workers_, request);
  if (const auto* placed = std::get_if<router::Placed>(&placement)) {
    Open(placed->decode, prompt.tokens);
    if (placed->prefill) {
      Open(*placed->prefill, prompt.tokens);
      under_way_.Begin(keys, *placed->prefill);
    }
  }
  return placement;
}

void SimulatedRouter::EndPrompt(const Prompt& prompt, WorkerId prefill) {
  under_way_.End(KeysOf(prompt), prefill);
}

void SimulatedRouter::Open(WorkerId worker, int32_t prompt_tokens) {
  ++workers_[worker].requests;
  workers_[worker].chosen = ++last_chosen_;
  accounts_[worker].open_tokens += prompt_tokens;
  accounts_[worker].open_blocks += router::BlocksNeeded(worker_->block_tokens, prompt_tokens);
  Refresh(worker);
}

void SimulatedRouter::Release(WorkerId worker, int32_t prompt_tokens) {
  --workers_[worker].requests;
  accounts_[worker].open_tokens -= prompt_tokens;
  accounts_[worker].open_blocks -= router::BlocksNeeded(worker_->block_tokens, prompt_tokens);
  Refresh(worker);
}

}  // namespace baton::simulator
