#pragma once

// Who goes next when more is asked for than the fleet can take: deficit round robin on tokens, as a
// pure data structure.
//
// Priorities come first, higher before lower, but each turn in kLowerShare goes to the lower ones,
// so that they go on slowly and never stop. Within a priority, tenants take turns; each turn adds a
// quantum of tokens to what a tenant may send, so tenants share tokens equally, not requests.
// Within a tenant, prompts of unlike size are in lanes of their own that take turns in the same
// way: a prompt of 100,000 tokens waits until its lane has saved up for it, and the short ones
// behind it pass. Within a lane, first come is first served.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace baton::router {

enum class Priority { kHigh = 0, kNormal = 1, kLow = 2 };
inline constexpr size_t kPriorities = 3;
std::string_view PriorityName(Priority priority);  // "high", "normal", "low"
std::optional<Priority> PriorityFromName(std::string_view name);

struct QueuedRequest {
  uint64_t handle = 0;  // unique
  std::string tenant;
  Priority priority = Priority::kNormal;
  int64_t tokens = 1;    // of its prompt: what serving it costs, as far as known
  TimePoint deadline{};  // it is of no use to anybody after this
};

// Not thread-safe.
class FairQueue {
 public:
  static constexpr int64_t kQuantumTokens = 2048;
  static constexpr int32_t kLowerShare = 8;
  static constexpr size_t kLanes = 4;  // up to 1K, 4K, 16K tokens, and longer

  void Push(QueuedRequest request);
  // About how many of those that wait would go before this one: of each tenant and lane as many as
  // go before it in its own.
  size_t Before(const QueuedRequest& request) const;
  // The one that goes next; empty when there is none.
  std::optional<uint64_t> Pop();
  // False when it is not in the queue.
  bool Remove(uint64_t handle);
  // Those whose deadline has come; they are removed.
  std::vector<uint64_t> TakeExpired(TimePoint now);

  size_t size() const { return where_.size(); }
  bool empty() const { return where_.empty(); }
  size_t size(Priority priority) const { return classes_[static_cast<size_t>(priority)].count; }
  int64_t tokens() const { return tokens_; }

 private:
  struct Lane {
    std::deque<QueuedRequest> requests;
    int64_t deficit = 0;
  };
  struct Tenant {
    std::string name;
    std::array<Lane, kLanes> lanes;
    size_t next_lane = 0;
    int64_t deficit = 0;
    size_t count = 0;
  };
  struct Class {
    std::list<Tenant> tenants;  // those with requests; the front has the turn
    std::unordered_map<std::string, std::list<Tenant>::iterator> by_name;
    size_t count = 0;
    int32_t passed_over = 0;  // turns that higher classes took while this one waited
  };
  struct Place {
    Priority priority = Priority::kNormal;
    std::list<Tenant>::iterator tenant;
    size_t lane = 0;
    TimePoint deadline{};
  };

  static size_t LaneOf(int64_t tokens);
  static size_t BeforeInTenant(const Tenant* tenant, size_t lane);
  Class* ChooseClass();
  static Lane& ChooseLane(Tenant& tenant);
  uint64_t PopFrom(Class& from);

  std::array<Class, kPriorities> classes_;
  std::unordered_map<uint64_t, Place> where_;
  std::set<std::pair<TimePoint, uint64_t>> deadlines_;
  int64_t tokens_ = 0;
};

}  // namespace baton::router
