#pragma once

// What a constraint allows, as a grammar: expressions over characters and bytes that may call named
// rules, also recursively. Regular expressions and JSON schemas are made into this; an Automaton is
// made of it.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace baton::grammar {

struct CodePointRange {
  uint32_t first = 0;
  uint32_t last = 0;  // inclusive
  bool operator==(const CodePointRange&) const = default;
};
inline constexpr uint32_t kLastCodePoint = 0x10FFFF;

// Sorted, disjoint, without surrogates. An empty set matches nothing.
using CharacterSet = std::vector<CodePointRange>;
CharacterSet Normalized(CharacterSet ranges);
CharacterSet Complement(const CharacterSet& set);  // `set` is normalized

using ExpressionId = int32_t;
using RuleId = int32_t;
inline constexpr int32_t kWithoutEnd = -1;

struct Expression {
  enum class Kind { kBytes, kCharacter, kSequence, kChoice, kRepeat, kList, kRule };
  Kind kind = Kind::kSequence;
  std::string bytes;        // kBytes
  CharacterSet characters;  // kCharacter: one of them, as UTF-8
  // kSequence; kChoice (none: nothing matches); kRepeat: one; kList: its items, in their order.
  std::vector<ExpressionId> parts;
  int32_t least = 0;            // kRepeat
  int32_t most = kWithoutEnd;   // kRepeat
  ExpressionId separator = -1;  // kList: between those items that are there
  std::vector<bool> required;   // kList: the others may be left out
  RuleId rule = -1;             // kRule
};

// An arena: expressions are made bottom up and refer to each other by id. Beyond kMaxExpressions
// it stays as it is and says so in status(); ids stay valid, so a maker checks once, at its end.
class Grammar {
 public:
  static constexpr size_t kMaxExpressions = 100'000;

  ExpressionId Bytes(std::string_view bytes);
  ExpressionId Character(CharacterSet set);
  ExpressionId Sequence(std::vector<ExpressionId> parts);
  ExpressionId Choice(std::vector<ExpressionId> parts);
  ExpressionId Repeat(ExpressionId part, int32_t least, int32_t most);
  ExpressionId List(std::vector<ExpressionId> items, std::vector<bool> required,
                    ExpressionId separator);
  ExpressionId Optional(ExpressionId part) { return Repeat(part, 0, 1); }
  ExpressionId Nothing() { return Choice({}); }  // matches no text, not even the empty one
  ExpressionId Empty() { return Sequence({}); }

  // A rule is declared first, so that it may call itself, and defined later.
  RuleId DeclareRule();
  void DefineRule(RuleId rule, ExpressionId body) { rules_[static_cast<size_t>(rule)] = body; }
  ExpressionId Call(RuleId rule);
  // Declared and defined at once.
  ExpressionId CallTo(ExpressionId body);
  // One of the texts. Those with equal beginnings share them.
  ExpressionId OneOf(std::vector<std::string> texts);

  const Expression& operator[](ExpressionId id) const {
    return expressions_[static_cast<size_t>(id)];
  }
  size_t rule_count() const { return rules_.size(); }
  ExpressionId rule(RuleId id) const { return rules_[static_cast<size_t>(id)]; }
  // InvalidArgument when there was no room for all of it.
  absl::Status status() const;

 private:
  ExpressionId Add(Expression expression);
  ExpressionId Endings(std::span<const std::string> sorted, size_t begin);

  std::vector<Expression> expressions_;
  std::vector<ExpressionId> rules_;  // -1: not defined
  bool full_ = false;
};

}  // namespace baton::grammar
