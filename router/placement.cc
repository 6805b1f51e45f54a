#include "router/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace baton::router {
namespace {

using worker_link::Role;

bool Usable(const WorkerSnapshot& worker, Role role) {
  return worker.role == role && worker.connected && !worker.draining;
}

bool Holds(const WorkerSnapshot& worker, int32_t prompt_tokens) {
  return BlocksNeeded(worker.block_tokens, prompt_tokens) <= worker.blocks_total;
}

// Smaller is better; compared field by field.
auto DecodeCost(const WorkerSnapshot& worker, const PlacementRequest& request) {
  const bool must_wait =
      BlocksNeeded(worker.block_tokens, request.prompt_tokens) > worker.blocks_available;
  return std::tuple(worker.id == request.avoid, must_wait, worker.requests,
                    worker.id != request.affinity.decode, -worker.blocks_available, worker.id);
}

auto PrefillCost(const WorkerSnapshot& worker, const PlacementRequest& request) {
  const int32_t cached =
      worker.id == request.affinity.prefill ? request.affinity.matched_tokens : 0;
  const int64_t tokens =
      worker.prompt_tokens_queued + request.prompt_tokens - std::min(cached, request.prompt_tokens);
  return std::tuple(worker.id == request.avoid, tokens, worker.requests, worker.id);
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
  for (const WorkerSnapshot& worker : workers) {
    if (!Usable(worker, Role::kDecode) || !Holds(worker, request.prompt_tokens)) continue;
    if (decode == nullptr || DecodeCost(worker, request) < DecodeCost(*decode, request)) {
      decode = &worker;
    }
  }
  if (decode == nullptr) return WhyNoDecodeWorker(workers, request.prompt_tokens);

  Placed placed{decode->id, std::nullopt};
  if (request.prompt_tokens <= request.local_prefill_tokens) return placed;
  const WorkerSnapshot* prefill = nullptr;
  for (const WorkerSnapshot& worker : workers) {
    if (!Usable(worker, Role::kPrefill) || worker.fingerprint != decode->fingerprint ||
        !Holds(worker, request.prompt_tokens)) {
      continue;
    }
    if (prefill == nullptr || PrefillCost(worker, request) < PrefillCost(*prefill, request)) {
      prefill = &worker;
    }
  }
  // Only a prefill worker that has just failed this prompt is left: the decode worker is safer.
  if (prefill != nullptr && prefill->id != request.avoid) placed.prefill = prefill->id;
  return placed;
}

}  // namespace baton::router
