#include "grammar/lazy_dfa.h"

#include <algorithm>
#include <utility>

namespace baton::grammar {
namespace {

uint64_t PairKey(int32_t a, int32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
}

}  // namespace

LazyDfa::LazyDfa(std::shared_ptr<const Automaton> automaton)
    : automaton_(std::move(automaton)), classes_(static_cast<size_t>(automaton_->class_count())) {
  Clear();
}

void LazyDfa::Clear() {
  states_.clear();
  next_.clear();
  stack_ids_.clear();
  state_ids_.clear();
  accepting_ids_.clear();
  work_ = 0;
  stacks_ = {{.return_to = -1, .below = -1, .depth = 0}};
  Follow({automaton_->begin(), 0});
  begin_ = TakeFound();
}

int32_t LazyDfa::FindNext(int32_t state, uint8_t byte_class) {
  const State& from = states_[static_cast<size_t>(state)];
  work_ += kTransitionWork;
  for (const Way& way : from.ways) {
    work_ += automaton_->state(way.at).bytes.size();
    for (const Automaton::ByteEdge& edge : automaton_->state(way.at).bytes) {
      const bool reads = edge.first_class <= byte_class && byte_class <= edge.last_class;
      if (reads) Follow({edge.target, way.stack});
    }
  }
  const int32_t next = TakeFound();
  next_[NextIndex(state, byte_class)] = next;
  return next;
}

// Adds to found_ everything that can be reached from here without reading.
void LazyDfa::Follow(Way way) {
  to_visit_.push_back(way);
  while (!to_visit_.empty()) {
    const Way next = to_visit_.back();
    to_visit_.pop_back();
    Visit(next);
  }
}

void LazyDfa::Visit(Way way) {
  const Automaton::State& state = automaton_->state(way.at);
  const StackNode stack = stacks_[static_cast<size_t>(way.stack)];
  if (stack.depth + state.depth_needed > Automaton::kMaxDepth) return;  // could not be completed
  if (visited_.size() >= kMaxVisits || !visited_.insert(PairKey(way.at, way.stack)).second) return;
  work_ += 1 + state.empty.size() + state.calls.size();
  if (!state.bytes.empty()) found_.push_back(way);
  if (state.rule_end) {
    if (stack.below < 0) {
      found_end_ = true;
    } else {
      to_visit_.push_back({stack.return_to, stack.below});
    }
  }
  // In reverse, for the last one pushed is visited first.
  for (auto call = state.calls.rbegin(); call != state.calls.rend(); ++call) {
    const int32_t inside = stack.depth + 1 + automaton_->state(call->rule_begin).depth_needed;
    const int32_t after = stack.depth + automaton_->state(call->return_to).depth_needed;
    if (std::max(inside, after) > Automaton::kMaxDepth) continue;
    to_visit_.push_back({call->rule_begin, Push(call->return_to, way.stack)});
  }
  for (auto target = state.empty.rbegin(); target != state.empty.rend(); ++target) {
    to_visit_.push_back({*target, way.stack});
  }
}

int32_t LazyDfa::Push(StateId return_to, int32_t below) {
  const auto [found, added] =
      stack_ids_.try_emplace(PairKey(return_to, below), static_cast<int32_t>(stacks_.size()));
  if (added) {
    const int32_t depth = stacks_[static_cast<size_t>(below)].depth + 1;
    stacks_.push_back({return_to, below, depth});
  }
  return found->second;
}

// The state of what was found, an old one or a new one.
int32_t LazyDfa::TakeFound() {
  visited_.clear();
  const bool accepts = std::exchange(found_end_, false);
  std::vector<Way> ways = std::exchange(found_, {});
  if (ways.size() > kMaxWays) ways.erase(ways.begin(), ways.end() - kMaxWays);
  if (ways.empty() && !accepts) return kDead;
  const auto key = [](const std::vector<Way>& of) {
    return std::string_view(reinterpret_cast<const char*>(of.data()), of.size() * sizeof(Way));
  };
  auto& ids = accepts ? accepting_ids_ : state_ids_;
  if (const auto known = ids.find(key(ways)); known != ids.end()) return known->second;
  const auto id = static_cast<int32_t>(states_.size());
  ways.shrink_to_fit();
  states_.push_back({std::move(ways), accepts});
  next_.resize(next_.size() + classes_, kUnknown);
  const State& state = states_.back();
  ids.emplace(key(state.ways), id);
  return id;
}

void LazyDfa::KeepOnly(std::span<int32_t* const> states) {
  std::vector<State> kept;
  for (const int32_t* state : states) {
    kept.push_back(*state == kDead ? State{} : states_[static_cast<size_t>(*state)]);
  }
  const std::vector<StackNode> old = std::move(stacks_);
  Clear();
  for (size_t i = 0; i < states.size(); ++i) {
    for (const Way& way : kept[i].ways) {
      std::vector<StateId> returns;  // innermost first
      for (int32_t at = way.stack; at > 0; at = old[static_cast<size_t>(at)].below) {
        returns.push_back(old[static_cast<size_t>(at)].return_to);
      }
      int32_t stack = 0;
      for (auto it = returns.rbegin(); it != returns.rend(); ++it) stack = Push(*it, stack);
      found_.push_back({way.at, stack});
    }
    found_end_ = kept[i].accepts;
    *states[i] = TakeFound();
  }
}

}  // namespace baton::grammar
