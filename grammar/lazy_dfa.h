#pragma once

// An automaton made deterministic as far as it is used: a state here is everything that the
// automaton may be doing after some bytes.

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "grammar/automaton.h"

namespace baton::grammar {

// Not thread-safe. State ids are valid until KeepOnly.
class LazyDfa {
 public:
  static constexpr int32_t kDead = -1;
  // Ways to read on that one state keeps. Of more the first are given up: a repetition's next round
  // comes before its end, so the way out stays. Each that is kept can be completed: the constraint
  // is then narrower, but never broken.
  static constexpr size_t kMaxWays = 256;
  // Of the automaton's states, to find those of one state here; what is behind them is given up.
  static constexpr size_t kMaxVisits = 16 * kMaxWays;

  explicit LazyDfa(std::shared_ptr<const Automaton> automaton);

  int32_t begin() const { return begin_; }
  // kDead when no text that satisfies the constraint goes on like this.
  int32_t Next(int32_t state, uint8_t byte) {
    const uint8_t byte_class = automaton_->class_of(byte);
    const int32_t next = next_[NextIndex(state, byte_class)];
    return next == kUnknown ? FindNext(state, byte_class) : next;
  }
  bool accepts(int32_t state) const { return states_[static_cast<size_t>(state)].accepts; }
  // Whether any byte may follow.
  bool goes_on(int32_t state) const { return !states_[static_cast<size_t>(state)].ways.empty(); }

  // What finding the transitions that are known has cost, in states and edges looked at, and
  // kTransitionWork for each. A transition costs the same whenever it is found. It takes at most a
  // kibibyte and 8 bytes a way.
  static constexpr size_t kTransitionWork = 32;
  size_t work() const { return work_; }
  // Forgets everything but these states, which get new ids, and begin(). kDead stays.
  void KeepOnly(std::span<int32_t* const> states);

 private:
  static constexpr int32_t kUnknown = -2;

  // Where the automaton is, and where it goes on when rules end.
  struct Way {
    StateId at;
    int32_t stack;
  };
  struct StackNode {
    StateId return_to;
    int32_t below;
    int32_t depth;
  };
  struct State {
    std::vector<Way> ways;  // at states that read bytes, in the order they were found
    bool accepts = false;
  };

  size_t NextIndex(int32_t state, uint8_t byte_class) const {
    return static_cast<size_t>(state) * classes_ + byte_class;
  }
  void Clear();
  int32_t FindNext(int32_t state, uint8_t byte_class);
  void Follow(Way way);
  void Visit(Way way);
  int32_t Push(StateId return_to, int32_t below);
  int32_t TakeFound();

  const std::shared_ptr<const Automaton> automaton_;
  const size_t classes_;
  std::deque<State> states_;
  std::vector<int32_t> next_;      // of each state, by class: kUnknown, kDead or a state
  std::vector<StackNode> stacks_;  // 0: the empty one
  absl::flat_hash_map<uint64_t, int32_t> stack_ids_;
  absl::flat_hash_map<std::string_view, int32_t> state_ids_;  // by the bytes of its ways
  absl::flat_hash_map<std::string_view, int32_t> accepting_ids_;
  int32_t begin_ = 0;
  size_t work_ = 0;

  // While a state is put together.
  std::vector<Way> found_;
  bool found_end_ = false;
  std::vector<Way> to_visit_;
  absl::flat_hash_set<uint64_t> visited_;
};

}  // namespace baton::grammar
