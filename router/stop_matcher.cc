#include "router/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace baton::router {

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool include) : include_(include) {
  for (const std::string& stop : stops) {
    Automaton automaton{stop, std::vector<size_t>(stop.size() + 1, 0)};
    for (size_t n = 1; n < stop.size(); ++n) {
      size_t border = automaton.border[n];
      while (border > 0 && stop[border] != stop[n]) border = automaton.border[border];
      automaton.border[n + 1] = stop[border] == stop[n] ? border + 1 : 0;
    }
    automata_.push_back(std::move(automaton));
  }
}

void StopMatcher::Automaton::Step(char byte) {
  while (matched > 0 && pattern[matched] != byte) matched = border[matched];
  if (pattern[matched] == byte) ++matched;
}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  if (automata_.empty()) return {std::string(text), false};
  for (const char byte : text) {
    held_.push_back(byte);
    size_t stop_bytes = 0;
    for (Automaton& automaton : automata_) {
      automaton.Step(byte);
      if (automaton.matched == automaton.pattern.size()) {
        stop_bytes = std::max(stop_bytes, automaton.matched);
      }
    }
    if (stop_bytes > 0) {
      if (!include_) held_.resize(held_.size() - stop_bytes);
      return {std::exchange(held_, ""), true};
    }
  }
  size_t hold_bytes = 0;
  for (const Automaton& automaton : automata_) {
    hold_bytes = std::max(hold_bytes, automaton.matched);
  }
  Result result{held_.substr(0, held_.size() - hold_bytes), false};
  held_.erase(0, held_.size() - hold_bytes);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(held_, ""); }

}  // namespace baton::router
