// What the constraints of hostile.h cost on this machine: a program that measures, not a test.
//   build/release/hostile_constraint_costs MODEL.gguf

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "common/clock.h"
#include "grammar/constraint.h"
#include "grammar/token_constrainer.h"
#include "tests/grammar/hostile.h"
#include "text/tokenizer.h"

namespace baton::grammar {
namespace {

double Milliseconds(TimePoint since) { return Seconds(SystemClock().Now() - since) * 1e3; }

struct Costs {
  double compile_ms = 0, first_ms = 0, worst_ms = 0;
  size_t states = 0;
  std::string refused;
};

// A random walk of so many tokens along what is allowed.
Costs Measure(TokenConstrainer& constrainer, const std::string& description, int tokens) {
  Costs costs;
  TimePoint begin = SystemClock().Now();
  const auto automaton = CompileConstraint(description);
  costs.compile_ms = Milliseconds(begin);
  if (!automaton.ok()) {
    costs.refused = std::string(automaton.status().message());
    return costs;
  }
  costs.states = (*automaton)->size();
  const auto constraint = constrainer.Create(description);
  std::mt19937 random(7);
  std::vector<TokenId> output;
  for (int i = 0; i < tokens; ++i) {
    begin = SystemClock().Now();
    const TokenConstraint::Next next = (*constraint)->After(output);
    const double ms = Milliseconds(begin);
    if (i == 0) costs.first_ms = ms;
    costs.worst_ms = std::max(costs.worst_ms, ms);
    if (next.must_end) break;
    std::vector<TokenId> allowed;
    for (size_t word = 0; word < next.allowed.size(); ++word) {
      for (size_t bit = 0; bit < 64; ++bit) {
        if (next.allowed[word] >> bit & 1) allowed.push_back(static_cast<TokenId>(word * 64 + bit));
      }
    }
    if (allowed.empty()) break;
    output.push_back(allowed[random() % allowed.size()]);
  }
  return costs;
}

int Main(const char* path) {
  const auto file = GgufFile::Open(path);
  const auto tokenizer = file.ok() ? text::Tokenizer::Create(**file) : file.status();
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.status().ToString());
    return 1;
  }
  std::vector<std::string_view> texts;
  for (TokenId token = 0; token < (*tokenizer)->vocab_size(); ++token) {
    texts.push_back((*tokenizer)->TokenBytes(token));
  }
  TokenConstrainer constrainer(texts, (*tokenizer)->strips_leading_space());
  fmt::print("{:34} {:>8} {:>11} {:>14} {:>14}\n", "constraint", "states", "compile, ms",
             "first mask, ms", "worst mask, ms");
  for (const HostileConstraint& hostile : HostileConstraints()) {
    const Costs costs = Measure(constrainer, hostile.description, 40);
    fmt::print("{:34} {:>8} {:>11.1f} {:>14.2f} {:>14.2f} {}\n", hostile.name, costs.states,
               costs.compile_ms, costs.first_ms, costs.worst_ms, costs.refused.substr(0, 90));
  }
  return 0;
}

}  // namespace
}  // namespace baton::grammar

int main(int argc, char** argv) {
  if (argc == 2) return baton::grammar::Main(argv[1]);
  fmt::print(stderr, "usage: {} MODEL.gguf\n", argv[0]);
  return 2;
}
