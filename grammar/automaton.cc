#include "grammar/automaton.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <utility>

#include "common/status_macros.h"
#include "grammar/utf8_sequences.h"

namespace baton::grammar {

// Makes states of expressions (Thompson's construction). While it works, byte edges hold bytes, not
// yet classes.
class AutomatonMaker {
 public:
  explicit AutomatonMaker(const Grammar& grammar)
      : grammar_(grammar), rule_begins_(grammar.rule_count(), -1) {}

  absl::StatusOr<std::shared_ptr<const Automaton>> Make(RuleId rule) {
    BATON_RETURN_IF_ERROR(grammar_.status());
    made_.begin_ = RuleBegin(rule);
    while (!unmade_.empty()) {
      const RuleId next = unmade_.back();
      unmade_.pop_back();
      const StateId end = NewState();
      if (full_) break;
      made_.states_[Index(end)].rule_end = true;
      Emit(grammar_.rule(next), rule_begins_[Index(next)], end);
    }
    if (full_) {
      return absl::InvalidArgumentError(fmt::format(
          "the constraint is too large: it needs more than {} states, or {} ways between them",
          Automaton::kMaxStates, Automaton::kMaxEdges));
    }
    FindReaders();
    FindDepths();
    if (made_.state(made_.begin_).depth_needed > Automaton::kMaxDepth) {
      return absl::InvalidArgumentError(
          fmt::format("no text satisfies the constraint, or only one nested more than {} deep",
                      Automaton::kMaxDepth));
    }
    BATON_RETURN_IF_ERROR(RefuseLeftRecursion());
    FindClasses();
    return std::make_shared<const Automaton>(std::move(made_));
  }

 private:
  static size_t Index(int32_t id) { return static_cast<size_t>(id); }
  Automaton::State& At(StateId id) { return made_.states_[Index(id)]; }

  StateId NewState() {
    if (made_.states_.size() >= Automaton::kMaxStates) {
      full_ = true;
      return static_cast<StateId>(made_.states_.size()) - 1;
    }
    made_.states_.emplace_back();
    return static_cast<StateId>(made_.states_.size()) - 1;
  }

  template <typename Edges>
  void AddEdge(Edges* edges, const typename Edges::value_type& edge) {
    if (edges_++ >= Automaton::kMaxEdges) full_ = true;
    if (!full_) edges->push_back(edge);
  }
  void AddEmpty(StateId from, StateId to) { AddEdge(&At(from).empty, to); }

  StateId RuleBegin(RuleId rule) {
    if (rule_begins_[Index(rule)] < 0) {
      rule_begins_[Index(rule)] = NewState();
      unmade_.push_back(rule);
    }
    return rule_begins_[Index(rule)];
  }

  // Paths from `from` to `to` that read what the expression matches. Depth of recursion: the
  // grammar's makers bound how deep expressions nest.
  void Emit(ExpressionId id, StateId from, StateId to) {
    if (full_) return;
    const Expression& expression = grammar_[id];
    switch (expression.kind) {
      case Expression::Kind::kBytes:
        EmitBytes(expression.bytes, from, to);
        return;
      case Expression::Kind::kCharacter:
        EmitCharacters(expression.characters, from, to);
        return;
      case Expression::Kind::kSequence:
        EmitSequence(expression.parts, from, to);
        return;
      case Expression::Kind::kChoice:
        for (const ExpressionId part : expression.parts) {
          const StateId begin = NewState();
          AddEmpty(from, begin);
          Emit(part, begin, to);
        }
        return;
      case Expression::Kind::kRepeat:
        EmitRepeat(expression, from, to);
        return;
      case Expression::Kind::kList:
        EmitList(expression, from, to);
        return;
      case Expression::Kind::kRule: {
        const StateId begin = RuleBegin(expression.rule);
        AddEdge(&At(from).calls, {begin, to});
        return;
      }
    }
  }

  void EmitBytes(std::string_view bytes, StateId from, StateId to) {
    if (bytes.empty()) {
      AddEmpty(from, to);
      return;
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
      const StateId next = i + 1 == bytes.size() ? to : NewState();
      const auto byte = static_cast<uint8_t>(bytes[i]);
      AddEdge(&At(from).bytes, {byte, byte, next});
      from = next;
    }
  }

  void EmitCharacters(const CharacterSet& set, StateId from, StateId to) {
    for (const CodePointRange& range : set) {
      if (full_) return;
      for (const ByteRanges& ranges : Utf8Sequences(range)) {
        StateId at = from;
        for (int i = 0; i < ranges.count; ++i) {
          const ByteRange& bytes = ranges.at[Index(i)];
          const StateId next = i + 1 == ranges.count ? to : NewState();
          AddEdge(&At(at).bytes, {bytes.first, bytes.last, next});
          at = next;
        }
      }
    }
  }

  void EmitSequence(const std::vector<ExpressionId>& parts, StateId from, StateId to) {
    if (parts.empty()) AddEmpty(from, to);
    for (size_t i = 0; i < parts.size(); ++i) {
      const StateId next = i + 1 == parts.size() ? to : NewState();
      Emit(parts[i], from, next);
      from = next;
    }
  }

  void EmitRepeat(const Expression& repeat, StateId from, StateId to) {
    const ExpressionId part = repeat.parts.front();
    for (int32_t i = 0; i < repeat.least && !full_; ++i) {
      const StateId next = NewState();
      Emit(part, from, next);
      from = next;
    }
    if (repeat.most == kWithoutEnd) {
      // A state of its own: nothing else may come back to it.
      const StateId loop = NewState();
      const StateId body = NewState();
      AddEmpty(from, loop);
      AddEmpty(loop, body);
      AddEmpty(loop, to);
      Emit(part, body, loop);
      return;
    }
    for (int32_t i = repeat.least; i < repeat.most && !full_; ++i) {
      const StateId body = NewState();
      const StateId next = NewState();
      AddEmpty(from, body);
      AddEmpty(from, to);
      Emit(part, body, next);
      from = next;
    }
    AddEmpty(from, to);
  }

  // Two chains lead to the items: one where none was there yet, one where a separator has been
  // read, so that another must come.
  void EmitList(const Expression& list, StateId from, StateId to) {
    const size_t count = list.parts.size();
    std::vector<bool> may_end(count + 1, true);  // whether all items from here on may be left out
    for (size_t i = count; i > 0; --i) may_end[i - 1] = may_end[i] && !list.required[i - 1];
    StateId none = from;
    StateId separated = NewState();
    for (size_t i = 0; i < count && !full_; ++i) {
      const StateId item = NewState();
      const StateId after = NewState();
      const StateId next_none = NewState();
      const StateId next_separated = NewState();
      AddEmpty(none, item);
      AddEmpty(separated, item);
      Emit(list.parts[i], item, after);
      Emit(list.separator, after, next_separated);
      if (may_end[i + 1]) AddEmpty(after, to);
      if (!list.required[i]) {
        AddEmpty(none, next_none);
        AddEmpty(separated, next_separated);
      }
      none = next_none;
      separated = next_separated;
    }
    AddEmpty(none, to);
  }

  // An edge, seen from where it leads.
  struct Reader {
    StateId from;
    int32_t call;  // index into its calls, or one of these
  };
  static constexpr int32_t kByte = -1;
  static constexpr int32_t kEmpty = -2;

  void FindReaders() {
    readers_.resize(made_.states_.size());
    for (size_t i = 0; i < made_.states_.size(); ++i) {
      const auto id = static_cast<StateId>(i);
      const Automaton::State& state = made_.states_[i];
      for (const auto& edge : state.bytes) readers_[Index(edge.target)].push_back({id, kByte});
      for (const StateId target : state.empty) readers_[Index(target)].push_back({id, kEmpty});
      for (size_t call = 0; call < state.calls.size(); ++call) {
        const Reader reader{id, static_cast<int32_t>(call)};
        readers_[Index(state.calls[call].rule_begin)].push_back(reader);
        readers_[Index(state.calls[call].return_to)].push_back(reader);
      }
    }
  }

  // From the ends of rules backwards: update(reader, to) for each edge to a state that has changed;
  // true when that changes where the edge comes from. One edge at a time: a state may have tens of
  // thousands.
  template <typename Update>
  void Propagate(Update update) {
    std::vector<StateId> changed;
    for (size_t i = 0; i < made_.states_.size(); ++i) {
      if (made_.states_[i].rule_end) changed.push_back(static_cast<StateId>(i));
    }
    while (!changed.empty()) {
      const StateId to = changed.back();
      changed.pop_back();
      for (const Reader& reader : readers_[Index(to)]) {
        if (update(reader, to)) changed.push_back(reader.from);
      }
    }
  }

  void FindDepths() {
    for (Automaton::State& state : made_.states_) {
      state.depth_needed = state.rule_end ? 0 : Automaton::kMaxDepth + 1;
    }
    Propagate([this](const Reader& reader, StateId to) {
      Automaton::State& from = At(reader.from);
      int32_t needed = At(to).depth_needed;
      if (reader.call >= 0) {
        const auto& call = from.calls[Index(reader.call)];
        needed = std::max(1 + At(call.rule_begin).depth_needed, At(call.return_to).depth_needed);
      }
      if (needed >= from.depth_needed) return false;
      from.depth_needed = needed;
      return true;
    });
  }

  // A rule that can come back to its own beginning without reading a byte would call forever.
  absl::Status RefuseLeftRecursion() {
    std::vector<bool> nullable(made_.states_.size());  // the rule's end can be reached at once
    for (size_t i = 0; i < nullable.size(); ++i) nullable[i] = made_.states_[i].rule_end;
    Propagate([&](const Reader& reader, StateId) {
      if (reader.call == kByte || nullable[Index(reader.from)]) return false;
      if (reader.call >= 0) {
        const auto& call = At(reader.from).calls[Index(reader.call)];
        if (!nullable[Index(call.rule_begin)] || !nullable[Index(call.return_to)]) return false;
      }
      nullable[Index(reader.from)] = true;
      return true;
    });
    // calls[s]: states reached from s without reading, where a call counts as entering the rule.
    // A cycle through a call is left recursion; one of empty edges alone is harmless.
    std::vector<std::vector<StateId>> enters(made_.states_.size());
    for (size_t i = 0; i < rule_begins_.size(); ++i) {
      if (rule_begins_[i] >= 0) enters[Index(rule_begins_[i])] = Entered(rule_begins_[i], nullable);
    }
    enum : uint8_t { kNew, kOpen, kDone };
    std::vector<uint8_t> mark(made_.states_.size(), kNew);
    for (const StateId root : rule_begins_) {
      if (root < 0 || mark[Index(root)] != kNew) continue;
      std::vector<std::pair<StateId, size_t>> path = {{root, 0}};
      mark[Index(root)] = kOpen;
      while (!path.empty()) {
        auto& [rule, next] = path.back();
        if (next == enters[Index(rule)].size()) {
          mark[Index(rule)] = kDone;
          path.pop_back();
          continue;
        }
        const StateId entered = enters[Index(rule)][next++];
        if (mark[Index(entered)] == kOpen) {
          return absl::InvalidArgumentError(
              "the constraint refers to itself with nothing in between");
        }
        if (mark[Index(entered)] == kDone) continue;
        mark[Index(entered)] = kOpen;
        path.emplace_back(entered, 0);
      }
    }
    return absl::OkStatus();
  }

  // The beginnings of the rules that a rule may call before it has read anything.
  std::vector<StateId> Entered(StateId rule_begin, const std::vector<bool>& nullable) {
    std::vector<StateId> entered;
    std::vector<StateId> stack = {rule_begin};
    std::vector<StateId> seen = {rule_begin};
    seen_.resize(made_.states_.size());
    seen_[Index(rule_begin)] = true;
    const auto visit = [&](StateId id) {
      if (seen_[Index(id)]) return;
      seen_[Index(id)] = true;
      seen.push_back(id);
      stack.push_back(id);
    };
    while (!stack.empty()) {
      const StateId id = stack.back();
      stack.pop_back();
      for (const StateId to : At(id).empty) visit(to);
      for (const auto& call : At(id).calls) {
        entered.push_back(call.rule_begin);
        if (nullable[Index(call.rule_begin)]) visit(call.return_to);
      }
    }
    for (const StateId id : seen) seen_[Index(id)] = false;
    std::ranges::sort(entered);
    const auto repeated = std::ranges::unique(entered);
    entered.erase(repeated.begin(), repeated.end());
    return entered;
  }

  void FindClasses() {
    std::bitset<257> begins;  // of a class
    begins.set(0);
    for (const Automaton::State& state : made_.states_) {
      for (const auto& edge : state.bytes) {
        begins.set(edge.first_class);
        begins.set(size_t{edge.last_class} + 1);
      }
    }
    int32_t current = -1;
    for (size_t byte = 0; byte < 256; ++byte) {
      if (begins.test(byte)) ++current;
      made_.classes_[byte] = static_cast<uint8_t>(current);
    }
    made_.class_count_ = current + 1;
    for (Automaton::State& state : made_.states_) {
      for (auto& edge : state.bytes) {
        edge.first_class = made_.classes_[edge.first_class];
        edge.last_class = made_.classes_[edge.last_class];
      }
    }
  }

  const Grammar& grammar_;
  Automaton made_;
  std::vector<StateId> rule_begins_;  // -1: nobody has called the rule yet
  std::vector<RuleId> unmade_;
  std::vector<std::vector<Reader>> readers_;  // of each state: the edges that lead there
  std::vector<bool> seen_;
  size_t edges_ = 0;
  bool full_ = false;
};

absl::StatusOr<std::shared_ptr<const Automaton>> Automaton::Create(const Grammar& grammar,
                                                                   RuleId rule) {
  return AutomatonMaker(grammar).Make(rule);
}

}  // namespace baton::grammar
