#pragma once

// How much of a prompt each worker holds.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace baton::router {

using WorkerId = uint32_t;  // of the registry; never used again for another address

// Leading tokens of one prompt, in memory and on disk.
struct HeldPrefix {
  int32_t memory_tokens = 0;
  int32_t disk_tokens = 0;

  bool operator==(const HeldPrefix&) const = default;
};

// Of all workers, by id. Made to be used again: clearing costs what was found.
class HeldPrefixes {
 public:
  void Clear() {
    for (const WorkerId worker : raised_) by_worker_[worker] = {};
    raised_.clear();
  }
  void RaiseMemory(WorkerId worker, int32_t tokens) {
    HeldPrefix& held = At(worker);
    held.memory_tokens = std::max(held.memory_tokens, tokens);
  }
  void RaiseDisk(WorkerId worker, int32_t tokens) {
    HeldPrefix& held = At(worker);
    held.disk_tokens = std::max(held.disk_tokens, tokens);
  }
  // By id; workers beyond its end hold nothing.
  std::span<const HeldPrefix> all() const { return by_worker_; }
  bool empty() const { return raised_.empty(); }

 private:
  HeldPrefix& At(WorkerId worker) {
    if (worker >= by_worker_.size()) by_worker_.resize(worker + size_t{1});
    if (by_worker_[worker] == HeldPrefix{}) raised_.push_back(worker);
    return by_worker_[worker];
  }

  std::vector<HeldPrefix> by_worker_;
  std::vector<WorkerId> raised_;
};

}  // namespace baton::router
