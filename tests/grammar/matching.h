#pragma once

// Whether texts satisfy a constraint, by the automaton that workers use.

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <string_view>

#include "grammar/constraint.h"
#include "grammar/lazy_dfa.h"

namespace baton::grammar {

class Matching {
 public:
  explicit Matching(const std::string& description) {
    auto automaton = CompileConstraint(description);
    EXPECT_TRUE(automaton.ok()) << automaton.status() << "\n" << description;
    if (automaton.ok()) dfa_ = std::make_unique<LazyDfa>(*automaton);
  }

  // After the text; kDead as soon as it cannot be gone on with.
  int32_t After(std::string_view text) {
    int32_t state = dfa_->begin();
    for (const char c : text) {
      if (state == LazyDfa::kDead) break;
      state = dfa_->Next(state, static_cast<uint8_t>(c));
    }
    return state;
  }
  bool Takes(std::string_view text) {
    const int32_t state = After(text);
    return state != LazyDfa::kDead && dfa_->accepts(state);
  }
  bool MayBegin(std::string_view text) { return After(text) != LazyDfa::kDead; }

  // The shortest text that completes what led to the state. Fails where there is none.
  std::string ShortestEnd(int32_t state) {
    struct Step {
      int32_t state;
      size_t from;
      char byte;
    };
    std::vector<Step> steps = {{state, 0, 0}};
    std::set<int32_t> seen = {state};
    for (size_t i = 0; i < steps.size() && i < 20'000; ++i) {
      if (dfa_->accepts(steps[i].state)) {
        std::string end;
        for (size_t at = i; at != 0; at = steps[at].from) end.insert(0, 1, steps[at].byte);
        return end;
      }
      for (int byte = 0; byte < 256; ++byte) {
        const int32_t next = dfa_->Next(steps[i].state, static_cast<uint8_t>(byte));
        if (next == LazyDfa::kDead || !seen.insert(next).second) continue;
        steps.push_back({next, i, static_cast<char>(byte)});
      }
    }
    ADD_FAILURE() << "no way out";
    return "";
  }

  // A text that satisfies the constraint, of random bytes; from `most` bytes on the shortest way
  // out.
  std::string Random(std::mt19937* random, size_t most = 400) {
    std::string text;
    int32_t state = dfa_->begin();
    while (text.size() < most) {
      const bool ends = dfa_->accepts(state) && (!dfa_->goes_on(state) || (*random)() % 4 == 0);
      if (ends) return text;
      std::vector<uint8_t> bytes;
      for (int byte = 0; byte < 256; ++byte) {
        if (dfa_->Next(state, static_cast<uint8_t>(byte)) != LazyDfa::kDead) {
          bytes.push_back(static_cast<uint8_t>(byte));
        }
      }
      if (bytes.empty()) {
        ADD_FAILURE() << "a dead end after " << text;
        return text;
      }
      const uint8_t byte = bytes[(*random)() % bytes.size()];
      text.push_back(static_cast<char>(byte));
      state = dfa_->Next(state, byte);
    }
    return text + ShortestEnd(state);
  }

  LazyDfa& dfa() { return *dfa_; }

 private:
  std::unique_ptr<LazyDfa> dfa_;
};

inline std::string WhyNot(const std::string& description) {
  const auto automaton = CompileConstraint(description);
  EXPECT_FALSE(automaton.ok()) << "taken: " << description;
  return std::string(automaton.status().message());
}

}  // namespace baton::grammar
