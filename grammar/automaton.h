#pragma once

// A grammar as a pushdown automaton over bytes: states with edges that read a byte, edges that read
// nothing, and edges that call a rule and go on where it returns.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "grammar/expression.h"

namespace baton::grammar {

using StateId = int32_t;

// Immutable, so safe to share.
class Automaton {
 public:
  static constexpr size_t kMaxStates = 60'000;
  static constexpr size_t kMaxEdges = 4 * kMaxStates;
  // Calls inside each other. What can only be matched with more is not matched.
  static constexpr int32_t kMaxDepth = 64;

  struct ByteEdge {
    uint8_t first_class, last_class;  // of class_of
    StateId target;
  };
  struct CallEdge {
    StateId rule_begin;
    StateId return_to;
  };
  struct State {
    std::vector<ByteEdge> bytes;
    std::vector<StateId> empty;
    std::vector<CallEdge> calls;
    bool rule_end = false;
    // How many calls deep one has to go from here to the rule's end; more than kMaxDepth where the
    // end cannot be reached at all.
    int32_t depth_needed = 0;
  };

  // What `rule` matches. InvalidArgument when that is nothing at all, when a rule calls itself
  // without reading anything before, or when there are too many states or edges.
  static absl::StatusOr<std::shared_ptr<const Automaton>> Create(const Grammar& grammar,
                                                                 RuleId rule);

  StateId begin() const { return begin_; }
  const State& state(StateId id) const { return states_[static_cast<size_t>(id)]; }
  size_t size() const { return states_.size(); }
  // Bytes that no edge tells apart are of one class.
  int32_t class_count() const { return class_count_; }
  uint8_t class_of(uint8_t byte) const { return classes_[byte]; }

 private:
  friend class AutomatonMaker;
  Automaton() = default;

  std::vector<State> states_;
  StateId begin_ = 0;
  int32_t class_count_ = 1;
  std::array<uint8_t, 256> classes_{};
};

}  // namespace baton::grammar
