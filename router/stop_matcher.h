#pragma once

// Finds stop strings in text that comes piece by piece.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace baton::router {

// The answer ends where a stop string first becomes complete; it is cut at that stop string's first
// byte, or with `include` behind its last (of several that complete at the same byte, the longest
// counts). Text that may yet turn out to begin a stop string is held back. The result does not
// depend on how the text was cut into pieces. Not thread-safe.
class StopMatcher {
 public:
  // Stop strings are not empty and do not begin inside a UTF-8 character, so text is only ever cut
  // between characters.
  explicit StopMatcher(const std::vector<std::string>& stops, bool include = false);

  struct Result {
    std::string text;      // final now: never part of a stop string
    bool stopped = false;  // a stop string is complete; what follows it is dropped
  };
  // After a result with `stopped` the matcher is over: no more calls.
  Result Push(std::string_view text);

  // At the end of the answer: what is held back is text after all.
  std::string Flush();

 private:
  // Knuth-Morris-Pratt automaton of one stop string: `matched` bytes of it end the text so far.
  struct Automaton {
    std::string pattern;
    std::vector<size_t> border;  // border[n]: longest proper border of the first n bytes
    size_t matched = 0;

    void Step(char byte);
  };

  const bool include_;
  std::vector<Automaton> automata_;
  std::string held_;
};

}  // namespace baton::router
