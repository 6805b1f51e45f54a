#include "router/room.h"

#include <algorithm>

namespace baton::router {
namespace {

// Beyond a full step, some may wait with their KV at hand for a place in it.
constexpr int32_t kStepsFourths = 5;
// A pool that is nearly full makes sequences wait, or be computed anew.
constexpr int64_t kSpareShare = 16;

bool PrefillRoom(const WorkerSnapshot& worker) {
  const auto half_second = static_cast<int64_t>(kPrefillSeconds * worker.prefill_tokens_per_s);
  return worker.requests < kPrefillRequests ||
         worker.prompt_tokens_queued < std::max(kPrefillTokens, half_second);
}

bool DecodeRoom(const WorkerSnapshot& worker) {
  if (worker.requests == 0) return true;
  if (worker.max_sequences > 0 &&
      int64_t{4} * worker.requests >= int64_t{kStepsFourths} * worker.max_sequences) {
    return false;
  }
  return worker.blocks_available * kSpareShare > worker.blocks_total;
}

}  // namespace

bool HasRoom(const WorkerSnapshot& worker) {
  return worker.role == worker_link::Role::kPrefill ? PrefillRoom(worker) : DecodeRoom(worker);
}

void FleetRoom::Add(const WorkerSnapshot& worker) {
  const auto role = static_cast<size_t>(worker.role);
  exists_[role] = true;
  room_[role] = room_[role] || HasRoom(worker);
}

bool FleetRoom::room() const {
  const auto prefill = static_cast<size_t>(worker_link::Role::kPrefill);
  const auto decode = static_cast<size_t>(worker_link::Role::kDecode);
  return !exists_[decode] || (room_[decode] && (!exists_[prefill] || room_[prefill]));
}

}  // namespace baton::router
