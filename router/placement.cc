#include "router/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "planner/cost_model.h"

namespace baton::router {
namespace {

using worker_link::Role;

bool Usable(const WorkerSnapshot& worker, Role role) {
  return worker.role == role && worker.connected && !worker.draining;
}

bool Avoided(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return std::find(request.avoid.begin(), request.avoid.end(), worker.id) != request.avoid.end();
}

bool Holds(const WorkerSnapshot& worker, int32_t prompt_tokens) {
  return BlocksNeeded(worker.block_tokens, prompt_tokens) <= worker.blocks_total;
}

// Smaller is better; compared field by field.
auto DecodeCost(const WorkerSnapshot& worker, const PlacementRequest& request) {
  const bool must_wait =
      BlocksNeeded(worker.block_tokens, request.prompt_tokens) > worker.blocks_available;
  return std::tuple(Avoided(worker, request), worker.suspect, must_wait, worker.requests,
                    worker.id != request.affinity.decode, -worker.blocks_available, worker.id);
}

// Tokens of the prompt that are probably cached at `donor`; the last one is computed in any case.
int32_t CachedTokens(const PlacementRequest& request) {
  return std::min(request.affinity.matched_tokens, request.prompt_tokens - 1);
}

// What fetching the cached prefix takes, in tokens that `worker` would compute meanwhile. Empty
// when there is nobody to fetch it from, or computing it is faster. KV of another layout is not
// fetched: what is computed over it would not be what one process computes.
std::optional<int64_t> FetchCost(const WorkerSnapshot& worker, const WorkerSnapshot* donor,
                                 const PlacementRequest& request) {
  if (donor == nullptr || donor->id == worker.id || donor->kv_layout != worker.kv_layout) {
    return std::nullopt;
  }
  const double tokens_per_s =
      worker.prefill_tokens_per_s > 0 ? worker.prefill_tokens_per_s : donor->prefill_tokens_per_s;
  if (tokens_per_s <= 0) return std::nullopt;
  const double bytes_per_s =
      worker.kv_bytes_per_s > 0 ? worker.kv_bytes_per_s : kAssumedKvBytesPerS;
  const int32_t cached = CachedTokens(request);
  const double fetch_s =
      planner::TransferSeconds(static_cast<double>(worker.kv_bytes_per_token), cached, bytes_per_s);
  const double cost = std::ceil(fetch_s * tokens_per_s);
  if (cost >= cached) return std::nullopt;
  return static_cast<int64_t>(cost);
}

auto PrefillCost(const WorkerSnapshot& worker, const WorkerSnapshot& decode,
                 const WorkerSnapshot* donor, const PlacementRequest& request) {
  int64_t tokens = worker.prompt_tokens_queued + request.prompt_tokens;
  if (worker.id == request.affinity.prefill) {
    tokens -= CachedTokens(request);
  } else if (const auto fetch = FetchCost(worker, donor, request)) {
    tokens -= CachedTokens(request) - *fetch;
  }
  return std::tuple(Avoided(worker, request), worker.suspect, tokens,
                    worker.kv_layout != decode.kv_layout, worker.requests, worker.id);
}

Refusal WhyNoDecodeWorker(std::span<const WorkerSnapshot> workers, int32_t prompt_tokens) {
  int connected = 0;
  int draining = 0;
  int64_t largest_tokens = 0;
  for (const WorkerSnapshot& worker : workers) {
    if (worker.role != Role::kDecode || !worker.connected) continue;
    ++connected;
    draining += worker.draining ? 1 : 0;
    if (!worker.draining) {
      largest_tokens = std::max(largest_tokens, worker.blocks_total * worker.block_tokens);
    }
  }
  if (connected == 0) {
    return {RefusalReason::kNoDecodeWorker,
            fmt::format("no decode worker is connected ({} workers known)", workers.size())};
  }
  if (draining == connected) {
    return {RefusalReason::kAllDraining,
            fmt::format("all {} connected decode workers are draining", connected)};
  }
  return {RefusalReason::kPromptTooLarge,
          fmt::format("prompt has {} tokens, but the largest decode worker's KV cache holds {}",
                      prompt_tokens, largest_tokens)};
}

}  // namespace

int64_t BlocksNeeded(int32_t block_tokens, int32_t prompt_tokens) {
  return (int64_t{prompt_tokens} + block_tokens) / block_tokens;
}

Placement Place(std::span<const WorkerSnapshot> workers, const PlacementRequest& request) {
  const WorkerSnapshot* decode = nullptr;
  decltype(DecodeCost(workers[0], request)) least_decode;
  for (const WorkerSnapshot& worker : workers) {
    if (!Usable(worker, Role::kDecode) || !Holds(worker, request.prompt_tokens)) continue;
    if (request.only_others && Avoided(worker, request)) continue;
    const auto cost = DecodeCost(worker, request);
    if (decode == nullptr || cost < least_decode) {
      decode = &worker;
      least_decode = cost;
    }
  }
  if (decode == nullptr) return WhyNoDecodeWorker(workers, request.prompt_tokens);

  Placed placed{decode->id, std::nullopt, std::nullopt};
  if (request.prompt_tokens <= request.local_prefill_tokens) return placed;
  const auto usable = [&](const WorkerSnapshot& worker) {
    return Usable(worker, Role::kPrefill) && worker.fingerprint == decode->fingerprint;
  };
  const WorkerSnapshot* donor = nullptr;
  if (request.affinity.prefill) {
    const auto found =
        std::ranges::lower_bound(workers, *request.affinity.prefill, {}, &WorkerSnapshot::id);
    const bool known = found != workers.end() && found->id == *request.affinity.prefill;
    if (known && usable(*found) && !Avoided(*found, request) && !found->suspect) donor = &*found;
  }
  const WorkerSnapshot* prefill = nullptr;
  decltype(PrefillCost(*decode, *decode, donor, request)) least_prefill;
  for (const WorkerSnapshot& worker : workers) {
    if (!usable(worker) || !Holds(worker, request.prompt_tokens)) continue;
    const auto cost = PrefillCost(worker, *decode, donor, request);
    if (prefill == nullptr || cost < least_prefill) {
      prefill = &worker;
      least_prefill = cost;
    }
  }
  // Only prefill workers that fail are left: the decode worker is safer.
  if (prefill == nullptr || Avoided(*prefill, request) || prefill->suspect) return placed;
  placed.prefill = prefill->id;
  if (FetchCost(*prefill, donor, request)) {
    placed.donor = PrefixDonor{donor->id, CachedTokens(request)};
  }
  return placed;
}

}  // namespace baton::router
