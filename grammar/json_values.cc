#include "grammar/json_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

namespace baton::grammar {
namespace {

namespace json = boost::json;

constexpr int32_t kMaxIndent = 32;
constexpr int32_t kMaxNumberDigits = 16;

const CharacterSet kDigit = {{'0', '9'}};
// What a string must escape.
const CharacterSet kEscaped = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};

std::string_view ShortEscape(uint32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return "";
  }
}

std::string Escape(uint32_t c) {
  const std::string_view escape = ShortEscape(c);
  return escape.empty() ? fmt::format("\\u{:04x}", c) : std::string(escape);
}

std::string JsonQuoted(std::string_view text) {
  return json::serialize(json::string_view(text.data(), text.size()));
}

std::string Scalar(const json::value& value) {
  return value.is_double() ? fmt::format("{}", value.get_double()) : json::serialize(value);
}

}  // namespace

JsonValues::JsonValues(Grammar* grammar) : grammar_(*grammar) {
  Grammar& g = grammar_;
  space_ = MakeSpace();
  comma_ = g.Sequence({g.Bytes(","), space_});
  character_ = MakeCharacter();
  string_ = g.CallTo(Quoted(g.Repeat(character_, 0, kWithoutEnd)));

  const ExpressionId digit = g.Character(kDigit);
  const ExpressionId more_digits = g.Repeat(digit, 0, kMaxNumberDigits - 1);
  const ExpressionId whole =
      g.Choice({g.Bytes("0"), g.Sequence({g.Character({{'1', '9'}}), more_digits})});
  const ExpressionId sign = g.Optional(g.Bytes("-"));
  integer_ = g.CallTo(g.Sequence({sign, whole}));
  const ExpressionId fraction = g.Sequence({g.Bytes("."), g.Repeat(digit, 1, kMaxNumberDigits)});
  const ExpressionId exponent =
      g.Sequence({g.Character({{'E', 'E'}, {'e', 'e'}}),
                  g.Optional(g.Character({{'+', '+'}, {'-', '-'}})), g.Repeat(digit, 1, 2)});
  number_ = g.CallTo(g.Sequence({sign, whole, g.Optional(fraction), g.Optional(exponent)}));

  const RuleId value = g.DeclareRule();
  value_ = g.Call(value);
  const ExpressionId member = g.Sequence({string_, g.Bytes(":"), space_, value_});
  object_ = g.CallTo(Bracketed('{', Listed(member, 1, kWithoutEnd), true, '}'));
  array_ = g.CallTo(Bracketed('[', Listed(value_, 1, kWithoutEnd), true, ']'));
  g.DefineRule(value, g.Choice({object_, array_, string_, number_, g.OneOf({"true", "false"}),
                                g.Bytes("null")}));
}

ExpressionId JsonValues::MakeSpace() const {
  Grammar& g = grammar_;
  return g.CallTo(g.Choice({g.Empty(), g.Bytes(" "),
                            g.Sequence({g.Bytes("\n"), g.Repeat(g.Bytes(" "), 0, kMaxIndent)})}));
}

// Escapes by number make no half of a surrogate pair.
ExpressionId JsonValues::MakeCharacter() const {
  Grammar& g = grammar_;
  const ExpressionId hex = g.Character({{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  const ExpressionId d = g.Character({{'D', 'D'}, {'d', 'd'}});
  const ExpressionId not_d =
      g.Character({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}});
  const ExpressionId high = g.Character({{'8', '9'}, {'A', 'B'}, {'a', 'b'}});
  const ExpressionId low = g.Character({{'C', 'F'}, {'c', 'f'}});
  const ExpressionId by_number = g.Choice({
      g.Sequence({not_d, hex, hex, hex}),
      g.Sequence({d, g.Character({{'0', '7'}}), hex, hex}),
      g.Sequence({d, high, hex, hex, g.Bytes("\\u"), d, low, hex, hex}),
  });
  CharacterSet after_backslash;
  for (const char c : std::string_view("\"\\/bfnrt")) {
    after_backslash.push_back({static_cast<uint32_t>(c), static_cast<uint32_t>(c)});
  }
  const ExpressionId escape = g.Sequence(
      {g.Bytes("\\"),
       g.Choice({g.Character(std::move(after_backslash)), g.Sequence({g.Bytes("u"), by_number})})});
  return g.CallTo(g.Choice({g.Character(Complement(kEscaped)), escape}));
}

ExpressionId JsonValues::Encoded(const CharacterSet& set) const {
  CharacterSet plain;
  std::vector<std::string> escaped;
  for (const CodePointRange& range : set) {
    uint32_t first = range.first;
    for (const CodePointRange& special : kEscaped) {
      const uint32_t begin = std::max(first, special.first);
      const uint32_t last = std::min(range.last, special.last);
      if (begin > last) continue;
      if (first < begin) plain.push_back({first, begin - 1});
      for (uint32_t c = begin; c <= last; ++c) escaped.push_back(Escape(c));
      first = last + 1;
    }
    if (first <= range.last) plain.push_back({first, range.last});
  }
  if (escaped.empty()) return grammar_.Character(std::move(plain));
  const ExpressionId escapes = grammar_.OneOf(std::move(escaped));
  if (plain.empty()) return escapes;
  return grammar_.Choice({grammar_.Character(std::move(plain)), escapes});
}

ExpressionId JsonValues::Quoted(ExpressionId characters) const {
  return grammar_.Sequence({grammar_.Bytes("\""), characters, grammar_.Bytes("\"")});
}

ExpressionId JsonValues::Member(std::string_view name, ExpressionId value) const {
  return grammar_.Sequence({grammar_.Bytes(JsonQuoted(name) + ":"), space_, value});
}

ExpressionId JsonValues::Bracketed(char open, ExpressionId content, bool may_be_empty,
                                   char close) const {
  const ExpressionId end = grammar_.Bytes(std::string_view(&close, 1));
  ExpressionId rest = grammar_.Sequence({content, space_, end});
  if (may_be_empty) rest = grammar_.Choice({end, rest});
  return grammar_.Sequence({grammar_.Bytes(std::string_view(&open, 1)), space_, rest});
}

ExpressionId JsonValues::Listed(ExpressionId part, int32_t least, int32_t most) const {
  if (most == 0) return grammar_.Empty();
  const ExpressionId more =
      grammar_.Repeat(grammar_.Sequence({comma_, part}), std::max(least - 1, 0),
                      most == kWithoutEnd ? kWithoutEnd : most - 1);
  const ExpressionId listed = grammar_.Sequence({part, more});
  return least == 0 ? grammar_.Optional(listed) : listed;
}

ExpressionId JsonValues::OtherName(std::vector<std::string> names) const {
  std::vector<std::string> quoted;
  for (const std::string& name : names) {
    const std::string text = JsonQuoted(name);
    const bool has_escapes = text.find('\\') != std::string::npos;  // never written here
    if (!has_escapes) quoted.push_back(text.substr(1));  // with its end, but not its begin
  }
  std::ranges::sort(quoted);
  return grammar_.Sequence({grammar_.Bytes("\""), OtherEnding(quoted, 0)});
}

// All endings of a name after its first `begin` bytes, which are those of all the sorted names, but
// not theirs. Whole characters branch at their first byte that differs.
ExpressionId JsonValues::OtherEnding(std::span<const std::string> sorted, size_t begin) const {
  Grammar& g = grammar_;
  const ExpressionId any =
      g.Sequence({g.Repeat(g.Character(Complement(kEscaped)), 0, kWithoutEnd), g.Bytes("\"")});
  if (sorted.empty()) return any;
  std::vector<ExpressionId> choices;
  CharacterSet next;  // characters that one of the names goes on with
  for (size_t i = 0; i < sorted.size();) {
    const std::string& name = sorted[i];
    size_t length = 1;
    while (begin + length < name.size() &&
           (static_cast<unsigned char>(name[begin + length]) & 0xC0) == 0x80) {
      ++length;
    }
    const std::string character = name.substr(begin, length);
    size_t end = i;
    while (end < sorted.size() && sorted[end].compare(begin, length, character) == 0) ++end;
    uint32_t c = static_cast<unsigned char>(character[0]);
    if (length > 1) c &= 0x7Fu >> length;
    for (size_t k = 1; k < length; ++k)
      c = c << 6 | (static_cast<unsigned char>(character[k]) & 0x3F);
    next.push_back({c, c});
    if (begin + length < name.size()) {
      choices.push_back(g.Sequence(
          {g.Bytes(character), OtherEnding(sorted.subspan(i, end - i), begin + length)}));
    }
    i = end;
  }
  const bool may_end_here =
      std::ranges::none_of(next, [](const CodePointRange& range) { return range.first == '"'; });
  if (may_end_here) choices.push_back(g.Bytes("\""));
  next.insert(next.end(), kEscaped.begin(), kEscaped.end());
  choices.push_back(g.Sequence({g.Character(Complement(Normalized(std::move(next)))), any}));
  return g.Choice(std::move(choices));
}

ExpressionId JsonValues::Literal(const json::value& value) const {
  std::vector<ExpressionId> parts;
  if (value.is_object()) {
    for (const json::key_value_pair& entry : value.get_object()) {
      if (!parts.empty()) parts.push_back(comma_);
      parts.push_back(Member({entry.key().data(), entry.key().size()}, Literal(entry.value())));
    }
    const bool empty = parts.empty();
    return Bracketed('{', empty ? grammar_.Nothing() : grammar_.Sequence(std::move(parts)), empty,
                     '}');
  }
  if (!value.is_array()) return grammar_.Bytes(Scalar(value));
  for (const json::value& element : value.get_array()) {
    if (!parts.empty()) parts.push_back(comma_);
    parts.push_back(Literal(element));
  }
  const bool empty = parts.empty();
  return Bracketed('[', empty ? grammar_.Nothing() : grammar_.Sequence(std::move(parts)), empty,
                   ']');
}

}  // namespace baton::grammar
