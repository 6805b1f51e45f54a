// What may stand after "is".

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"

namespace baton::text::jinja {
namespace {

// Tests that only look at the value.
struct PlainTest {
  std::string_view name;
  bool (*test)(const Value& value);
};

bool IsSequence(const Value& v) {
  return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr || v.IsUndefined();
}

bool HasCase(const Value& value, char first, char last) {
  const std::string text(ToText(value).bytes());
  const auto within = [](char c, char low, char high) { return c >= low && c <= high; };
  const bool any =
      std::any_of(text.begin(), text.end(), [&](char c) { return within(c, first, last); });
  const bool other = std::any_of(text.begin(), text.end(), [&](char c) {
    const char swapped = static_cast<char>(c ^ 0x20);
    return within(swapped, first, last);
  });
  return any && !other;
}

constexpr PlainTest kPlainTests[] = {
    {"boolean", [](const Value& v) { return v.Is<bool>(); }},
    {"callable", [](const Value& v) { return v.IsCallable(); }},
    {"defined", [](const Value& v) { return !v.IsUndefined(); }},
    {"false", [](const Value& v) { return v.Is<bool>() && !v.Truthy(); }},
    {"float", [](const Value& v) { return v.Is<double>(); }},
    {"integer", [](const Value& v) { return v.Is<int64_t>(); }},
    {"iterable", IsSequence},
    {"lower", [](const Value& v) { return HasCase(v, 'a', 'z'); }},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"none", [](const Value& v) { return v.IsNone(); }},
    {"number", [](const Value& v) { return v.IsNumber(); }},
    {"sequence", IsSequence},
    {"string", [](const Value& v) { return v.text() != nullptr; }},
    {"true", [](const Value& v) { return v.Is<bool>() && v.Truthy(); }},
    {"undefined", [](const Value& v) { return v.IsUndefined(); }},
    {"upper", [](const Value& v) { return HasCase(v, 'A', 'Z'); }},
};

// Tests that are another way to write an operator.
constexpr std::pair<std::string_view, std::string_view> kComparisons[] = {
    {"equalto", "=="}, {"eq", "=="},         {"==", "=="}, {"sameas", "=="},
    {"ne", "!="},      {"greaterthan", ">"}, {"gt", ">"},  {"ge", ">="},
    {"lessthan", "<"}, {"lt", "<"},          {"le", "<="}, {"in", "in"}};

absl::StatusOr<bool> DivisibleBy(const Value& value, const Value& by, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Value remainder, Arithmetic("%", value, by, budget));
  return !remainder.Truthy();
}

}  // namespace

absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const Arguments& args,
                               Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(value.text() != nullptr ? value.text()->size() : 0));
  for (const PlainTest& plain : kPlainTests) {
    if (plain.name == name) return plain.test(value);
  }
  const Value two(int64_t{2});
  if (name == "even") return DivisibleBy(value, two, budget);
  if (name == "odd") {
    BATON_ASSIGN_OR_RETURN(const bool even, DivisibleBy(value, two, budget));
    return !even;
  }
  const auto comparison = std::find_if(std::begin(kComparisons), std::end(kComparisons),
                                       [name](const auto& entry) { return entry.first == name; });
  if (comparison == std::end(kComparisons) && name != "divisibleby") {
    return absl::InvalidArgumentError(fmt::format("test '{}' is not supported", name));
  }
  if (args.positional.size() != 1) {
    return absl::InvalidArgumentError(
        fmt::format("test '{}' takes one argument, not {}", name, args.positional.size()));
  }
  if (name == "divisibleby") return DivisibleBy(value, args.positional[0], budget);
  return Compare(comparison->second, value, args.positional[0], budget);
}

}  // namespace baton::text::jinja
