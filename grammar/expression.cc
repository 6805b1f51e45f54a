#include "grammar/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::grammar {
namespace {

constexpr CodePointRange kSurrogates{0xD800, 0xDFFF};

}  // namespace

CharacterSet Normalized(CharacterSet ranges) {
  CharacterSet pieces;
  for (const CodePointRange& range : ranges) {
    const uint32_t last = std::min(range.last, kLastCodePoint);
    if (range.first < kSurrogates.first && range.first <= last) {
      pieces.push_back({range.first, std::min(last, kSurrogates.first - 1)});
    }
    if (last > kSurrogates.last) {
      pieces.push_back({std::max(range.first, kSurrogates.last + 1), last});
    }
  }
  std::ranges::sort(pieces, {}, &CodePointRange::first);
  CharacterSet merged;
  for (const CodePointRange& piece : pieces) {
    if (piece.first > piece.last) continue;
    if (!merged.empty() && piece.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, piece.last);
    } else {
      merged.push_back(piece);
    }
  }
  return merged;
}

CharacterSet Complement(const CharacterSet& set) {
  CharacterSet others;
  uint32_t next = 0;
  for (const CodePointRange& range : set) {
    if (range.first > next) others.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) others.push_back({next, kLastCodePoint});
  return Normalized(std::move(others));
}

ExpressionId Grammar::Add(Expression expression) {
  if (expressions_.size() >= kMaxExpressions) {
    full_ = true;
    return static_cast<ExpressionId>(expressions_.size()) - 1;
  }
  expressions_.push_back(std::move(expression));
  return static_cast<ExpressionId>(expressions_.size()) - 1;
}

ExpressionId Grammar::Bytes(std::string_view bytes) {
  return Add({.kind = Expression::Kind::kBytes, .bytes = std::string(bytes)});
}

ExpressionId Grammar::Character(CharacterSet set) {
  return Add({.kind = Expression::Kind::kCharacter, .characters = Normalized(std::move(set))});
}

ExpressionId Grammar::Sequence(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return Add({.kind = Expression::Kind::kSequence, .parts = std::move(parts)});
}

ExpressionId Grammar::Choice(std::vector<ExpressionId> parts) {
  if (parts.size() == 1) return parts.front();
  return Add({.kind = Expression::Kind::kChoice, .parts = std::move(parts)});
}

ExpressionId Grammar::Repeat(ExpressionId part, int32_t least, int32_t most) {
  return Add({.kind = Expression::Kind::kRepeat, .parts = {part}, .least = least, .most = most});
}

ExpressionId Grammar::List(std::vector<ExpressionId> items, std::vector<bool> required,
                           ExpressionId separator) {
  return Add({.kind = Expression::Kind::kList,
              .parts = std::move(items),
              .separator = separator,
              .required = std::move(required)});
}

ExpressionId Grammar::OneOf(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  const auto repeated = std::ranges::unique(texts);
  texts.erase(repeated.begin(), repeated.end());
  return Endings(texts, 0);
}

// What follows the first `begin` bytes, which are the same in all of the sorted texts. It nests as
// deep as there are texts that begin another.
ExpressionId Grammar::Endings(std::span<const std::string> sorted, size_t begin) {
  std::vector<ExpressionId> choices;
  for (size_t i = 0; i < sorted.size();) {
    const std::string& first = sorted[i];
    size_t end = i + 1;
    if (first.size() == begin) {
      choices.push_back(Empty());
      i = end;
      continue;
    }
    while (end < sorted.size() && sorted[end][begin] == first[begin]) ++end;
    // As many bytes as the first and the last, and so all between, have in common.
    const std::string& last = sorted[end - 1];
    size_t common = begin;
    while (common < first.size() && common < last.size() && first[common] == last[common]) ++common;
    const ExpressionId bytes = Bytes(std::string_view(first).substr(begin, common - begin));
    choices.push_back(
        end == i + 1 ? bytes : Sequence({bytes, Endings(sorted.subspan(i, end - i), common)}));
    i = end;
  }
  return Choice(std::move(choices));
}

RuleId Grammar::DeclareRule() {
  rules_.push_back(-1);
  return static_cast<RuleId>(rules_.size()) - 1;
}

ExpressionId Grammar::Call(RuleId rule) {
  return Add({.kind = Expression::Kind::kRule, .rule = rule});
}

ExpressionId Grammar::CallTo(ExpressionId body) {
  const RuleId rule = DeclareRule();
  DefineRule(rule, body);
  return Call(rule);
}

absl::Status Grammar::status() const {
  if (!full_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the constraint is too large: it has more than {} parts", kMaxExpressions));
}

}  // namespace baton::grammar
