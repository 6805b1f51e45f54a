#include "grammar/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace baton::grammar {
namespace {

constexpr int kMaxGroups = 64;  // inside each other
constexpr int32_t kMaxRepeats = 5'000;

const CharacterSet kDigits = {{'0', '9'}};
const CharacterSet kWordCharacters = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharacterSet kSpaces = {{'\t', '\r'}, {' ', ' '}};
const CharacterSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}};

// False when `text` is not UTF-8.
bool ToCodePoints(std::string_view text, std::vector<uint32_t>* out) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t bytes = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || i + bytes > text.size()) return false;
    uint32_t c = bytes == 1 ? lead : lead & (0x7Fu >> bytes);
    for (size_t k = 1; k < bytes; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      c = c << 6 | (next & 0x3F);
    }
    out->push_back(c);
    i += bytes;
  }
  return true;
}

class RegexParser {
 public:
  RegexParser(std::vector<uint32_t> pattern, const RegexOptions& options, Grammar* grammar)
      : pattern_(std::move(pattern)), options_(options), grammar_(*grammar) {}

  absl::StatusOr<ExpressionId> Parse() {
    const bool at_begin = options_.whole || Peek() == '^';
    if (Peek() == '^') ++at_;
    BATON_ASSIGN_OR_RETURN(ExpressionId body, Alternatives(0));
    if (at_ < pattern_.size()) return Refuse("an unmatched ')'", at_);
    if (anchored_alternative_) {
      return Refuse("'^' or '$' in one of several alternatives", anchor_at_);
    }
    const bool at_end = options_.whole || ends_;
    if (at_begin && at_end) return body;
    const ExpressionId any = grammar_.Repeat(Character(Complement({})), 0, kWithoutEnd);
    std::vector<ExpressionId> parts;
    if (!at_begin) parts.push_back(any);
    parts.push_back(body);
    if (!at_end) parts.push_back(any);
    return grammar_.Sequence(std::move(parts));
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t Peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : kNone;
  }
  bool Take(uint32_t c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  static absl::Status Refuse(std::string_view what, size_t at) {
    return absl::InvalidArgumentError(
        fmt::format("the regular expression has {} at character {}", what, at));
  }
  static absl::Status Unsupported(std::string_view what, size_t at) {
    return Refuse(fmt::format("{}, which is not supported,", what), at);
  }

  ExpressionId Character(CharacterSet set) {
    set = Normalized(std::move(set));
    return options_.character ? options_.character(&grammar_, set)
                              : grammar_.Character(std::move(set));
  }

  absl::StatusOr<ExpressionId> Alternatives(int depth) {
    if (depth > kMaxGroups) {
      return Refuse(fmt::format("groups more than {} deep", kMaxGroups), at_);
    }
    std::vector<ExpressionId> choices;
    do {
      BATON_ASSIGN_OR_RETURN(choices.emplace_back(), Pieces(depth));
    } while (Take('|'));
    // "^a|b" anchors only its first alternative, which one flag for all cannot say.
    if (depth == 0 && choices.size() > 1 && (ends_ || pattern_.front() == '^')) {
      anchored_alternative_ = !options_.whole;
      anchor_at_ = 0;
    }
    return grammar_.Choice(std::move(choices));
  }

  absl::StatusOr<ExpressionId> Pieces(int depth) {
    std::vector<ExpressionId> parts;
    while (at_ < pattern_.size() && Peek() != '|' && Peek() != ')') {
      if (Peek() == '$') {
        if (depth > 0 || at_ + 1 != pattern_.size()) return Unsupported("'$' before its end", at_);
        ++at_;
        ends_ = true;
        break;
      }
      BATON_ASSIGN_OR_RETURN(const ExpressionId atom, Atom(depth));
      BATON_ASSIGN_OR_RETURN(parts.emplace_back(), Repeated(atom));
    }
    return grammar_.Sequence(std::move(parts));
  }

  absl::StatusOr<ExpressionId> Atom(int depth) {
    const size_t begin = at_;
    const uint32_t c = pattern_[at_++];
    switch (c) {
      case '(':
        return Group(depth, begin);
      case '[': {
        BATON_ASSIGN_OR_RETURN(CharacterSet set, Class(begin));
        return Character(std::move(set));
      }
      case '.':
        return Character(Complement(kLineEnds));
      case '^':
        return Unsupported("'^' after its beginning", begin);
      case '*':
      case '+':
      case '?':
        return Refuse("nothing to repeat", begin);
      case '{':
        // As in Python, a brace that is no count is itself.
        if (IsCount(begin)) return Refuse("nothing to repeat", begin);
        return Character({{c, c}});
      case '\\': {
        BATON_ASSIGN_OR_RETURN(CharacterSet set, Escape(begin));
        return Character(std::move(set));
      }
      default:
        return Character({{c, c}});
    }
  }

  absl::StatusOr<ExpressionId> Group(int depth, size_t begin) {
    if (Take('?')) {
      const bool python_name = Peek() == 'P' && Peek(1) == '<';
      if (Take(':')) {
        // Nothing is captured anyway.
      } else if (python_name || (Peek() == '<' && Peek(1) != '=' && Peek(1) != '!')) {
        while (at_ < pattern_.size() && Peek() != '>') ++at_;
        if (!Take('>')) return Refuse("a group's name that does not end", begin);
      } else if (Peek() == '=' || Peek() == '!' || Peek() == '<') {
        return Unsupported("a look-around", begin);
      } else {
        return Unsupported("a group with '(?' and then neither ':' nor a name", begin);
      }
    }
    BATON_ASSIGN_OR_RETURN(const ExpressionId body, Alternatives(depth + 1));
    if (!Take(')')) return Refuse("a group that is not closed", begin);
    return body;
  }

  // {n}, {n,} or {n,m} at `at`.
  bool IsCount(size_t at) const {
    size_t i = at + 1;
    const auto digits = [&] {
      const size_t first = i;
      while (i < pattern_.size() && pattern_[i] >= '0' && pattern_[i] <= '9') ++i;
      return i > first;
    };
    if (!digits()) return false;
    if (i < pattern_.size() && pattern_[i] == ',') {
      ++i;
      digits();
    }
    return i < pattern_.size() && pattern_[i] == '}';
  }

  absl::StatusOr<int32_t> Count() {
    int64_t value = 0;
    const size_t begin = at_;
    while (Peek() >= '0' && Peek() <= '9') {
      value = std::min<int64_t>(value * 10 + (Peek() - '0'), INT32_MAX);
      ++at_;
    }
    if (value > kMaxRepeats) {
      return Refuse(fmt::format("a count of {}, but at most {} are taken,", value, kMaxRepeats),
                    begin);
    }
    return static_cast<int32_t>(value);
  }

  absl::StatusOr<ExpressionId> Repeated(ExpressionId atom) {
    for (int times = 0;; ++times) {
      const size_t begin = at_;
      int32_t least = 0;
      int32_t most = kWithoutEnd;
      if (Peek() == '{' && IsCount(at_)) {
        ++at_;
        BATON_ASSIGN_OR_RETURN(least, Count());
        most = least;
        if (Take(',')) {
          most = kWithoutEnd;
          if (Peek() != '}') {
            BATON_ASSIGN_OR_RETURN(most, Count());
          }
        }
        ++at_;  // the brace
        if (most != kWithoutEnd && most < least) return Refuse("a count from high to low", begin);
      } else if (Take('*')) {
      } else if (Take('+')) {
        least = 1;
      } else if (Take('?')) {
        most = 1;
      } else {
        return atom;
      }
      if (times > 0) return Refuse("a repetition of a repetition", begin);
      if (Peek() == '+') return Unsupported("a possessive repetition", begin);
      Take('?');  // lazy: the same texts
      atom = grammar_.Repeat(atom, least, most);
    }
  }

  absl::StatusOr<uint32_t> Hex(int digits, size_t begin) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const uint32_t c = Peek();
      const uint32_t digit = c >= '0' && c <= '9'   ? c - '0'
                             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : kNone;
      if (digit == kNone)
        return Refuse(fmt::format("an escape without {} hex digits", digits), begin);
      value = value * 16 + digit;
      ++at_;
    }
    return value;
  }

  // After a backslash.
  absl::StatusOr<CharacterSet> Escape(size_t begin) {
    if (at_ == pattern_.size()) return Refuse("a backslash with nothing after it", begin);
    const uint32_t c = pattern_[at_++];
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return Complement(kDigits);
      case 'w':
        return kWordCharacters;
      case 'W':
        return Complement(kWordCharacters);
      case 's':
        return kSpaces;
      case 'S':
        return Complement(kSpaces);
      case 'n':
        return CharacterSet{{'\n', '\n'}};
      case 't':
        return CharacterSet{{'\t', '\t'}};
      case 'r':
        return CharacterSet{{'\r', '\r'}};
      case 'f':
        return CharacterSet{{'\f', '\f'}};
      case 'v':
        return CharacterSet{{'\v', '\v'}};
      case '0':
        return CharacterSet{{0, 0}};
      case 'x':
      case 'u': {
        BATON_ASSIGN_OR_RETURN(const uint32_t value, Hex(c == 'x' ? 2 : 4, begin));
        return CharacterSet{{value, value}};
      }
      default:
        break;
    }
    const bool letter_or_digit =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (letter_or_digit) {
      return Unsupported(fmt::format("'\\{}'", static_cast<char>(c)), begin);
    }
    return CharacterSet{{c, c}};
  }

  // One member of a class: a set, of which a single character may begin or end a range.
  absl::StatusOr<CharacterSet> Member(size_t begin) {
    if (at_ == pattern_.size()) return Refuse("a class that is not closed", begin);
    const size_t at = at_;
    const uint32_t c = pattern_[at_++];
    if (c == '[' && Peek() == ':') return Unsupported("a named class", at);
    if (c != '\\') return CharacterSet{{c, c}};
    if (Take('b')) return CharacterSet{{'\b', '\b'}};
    return Escape(at);
  }

  absl::StatusOr<CharacterSet> Class(size_t begin) {
    const bool negated = Take('^');
    CharacterSet set;
    for (bool first = true; first || Peek() != ']'; first = false) {
      BATON_ASSIGN_OR_RETURN(const CharacterSet low, Member(begin));
      if (Peek() != '-' || Peek(1) == ']' || Peek(1) == kNone) {
        set.insert(set.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      BATON_ASSIGN_OR_RETURN(const CharacterSet high, Member(begin));
      const bool single = low.size() == 1 && low[0].first == low[0].last && high.size() == 1 &&
                          high[0].first == high[0].last;
      if (!single || low[0].first > high[0].first) return Refuse("a range that is none", begin);
      set.push_back({low[0].first, high[0].first});
    }
    ++at_;  // the bracket
    set = Normalized(std::move(set));
    return negated ? Complement(set) : set;
  }

  const std::vector<uint32_t> pattern_;
  const RegexOptions& options_;
  Grammar& grammar_;
  size_t at_ = 0;
  bool ends_ = false;  // with '$'
  bool anchored_alternative_ = false;
  size_t anchor_at_ = 0;
};

}  // namespace

absl::StatusOr<ExpressionId> ParseRegex(std::string_view pattern, const RegexOptions& options,
                                        Grammar* grammar) {
  std::vector<uint32_t> characters;
  if (!ToCodePoints(pattern, &characters)) {
    return absl::InvalidArgumentError("the regular expression is not UTF-8");
  }
  return RegexParser(std::move(characters), options, grammar).Parse();
}

}  // namespace baton::grammar
