#pragma once

// Which blocks of prompts a simulated prefill worker has, the least recently used going first.

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace baton::simulator {

// Ids stand for a block with all before it; those of another round are other blocks.
class PrefixCache {
 public:
  // Leading blocks that are there; they count as used now.
  size_t Match(std::span<const int64_t> blocks, int64_t round);
  void Put(std::span<const int64_t> blocks, int64_t round, size_t capacity);
  size_t size() const { return order_.size(); }

  // Since it was asked last: what a worker tells its routers.
  struct Changes {
    std::vector<uint64_t> added, dropped;  // of KeyOf
  };
  Changes TakeChanges() { return std::exchange(changes_, {}); }

  static uint64_t KeyOf(int64_t block, int64_t round);

 private:
  std::list<uint64_t> order_;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> where_;
  Changes changes_;
};

}  // namespace baton::simulator
