// Any bytes as a constraint: as its whole description, as a regular expression and as a JSON
// schema. What compiles is read along: each text it leads to can be completed.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/constraint_fuzz.cc
//     grammar/*.cc common/nearest_name.cc common/status_macros.cc -lboost_json -lfmt
//     $(pkg-config --libs absl_status absl_statusor absl_flat_hash_map) -o constraint_fuzz
//   ./constraint_fuzz -max_len=4096 CORPUS tests/fuzz/corpus/constraints

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "grammar/constraint.h"
#include "grammar/lazy_dfa.h"

namespace baton::grammar {
namespace {

// Follows a way that the input chooses; a state that neither ends nor goes on is a bug.
void ReadAlong(const std::string& description, std::string_view choices) {
  const auto automaton = CompileConstraint(description);
  if (!automaton.ok()) return;
  LazyDfa dfa(*automaton);
  int32_t state = dfa.begin();
  for (size_t i = 0; i < choices.size() && i < 64; ++i) {
    const auto first = static_cast<uint8_t>(choices[i]);
    int32_t next = LazyDfa::kDead;
    for (int offset = 0; offset < 256 && next == LazyDfa::kDead; ++offset) {
      next = dfa.Next(state, static_cast<uint8_t>(first + offset));
    }
    if (next == LazyDfa::kDead) {
      if (!dfa.accepts(state)) std::abort();
      return;
    }
    state = next;
  }
}

}  // namespace
}  // namespace baton::grammar

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  baton::grammar::ReadAlong(std::string(text), text);
  baton::grammar::ReadAlong(baton::grammar::RegexConstraint(text), text);
  baton::grammar::ReadAlong(baton::grammar::JsonSchemaConstraint(text), text);
  return 0;
}
