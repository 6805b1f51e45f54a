// What may stand after "|".

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/text_ops.h"

namespace baton::text::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Filter = Result (*)(const Value& value, const Arguments& args, Budget& budget);

// The text of a value, as filters on strings take it.
absl::StatusOr<Text> Printed(const Value& value, Budget& budget) {
  BATON_RETURN_IF_ERROR(SpendOnPrinting(value, budget));
  return ToText(value);
}

template <Text (*kChange)(const Text&)>
Result Changed(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Text text, Printed(value, budget));
  return Value(kChange(text));
}

Result String(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(Text text, Printed(value, budget));
  return Value(std::move(text));
}

Result Trim(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Text text, Printed(value, budget));
  const Value* chars = args.Get(0, "chars");
  if (chars == nullptr || chars->IsNone()) return Value(Strip(text, std::nullopt, true, true));
  BATON_ASSIGN_OR_RETURN(const Text set, args.String(0, "chars", ""));
  return Value(Strip(text, set.bytes(), true, true));
}

Result ReplaceFilter(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Text text, Printed(value, budget));
  BATON_ASSIGN_OR_RETURN(const Text old, args.String(0, "old", ""));
  BATON_ASSIGN_OR_RETURN(const Text replacement, args.String(1, "new", ""));
  BATON_ASSIGN_OR_RETURN(const int64_t count, args.Integer(2, "count", -1));
  BATON_ASSIGN_OR_RETURN(Text out, Replace(text, old.bytes(), replacement, count, budget));
  return Value(std::move(out));
}

Result IndentFilter(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Text text, Printed(value, budget));
  BATON_ASSIGN_OR_RETURN(const int64_t width, args.Integer(0, "width", 4));
  BATON_ASSIGN_OR_RETURN(Text out, Indent(text, width, args.Flag(1, "first", false),
                                          args.Flag(2, "blank", false), budget));
  return Value(std::move(out));
}

Result ToJsonFilter(const Value& value, const Arguments& args, Budget& budget) {
  constexpr int64_t kMaxIndent = 16;
  const Value* given = args.Get(0, "indent");
  int64_t indent = -1;
  if (given != nullptr && !given->IsNone()) {
    BATON_ASSIGN_OR_RETURN(indent, args.Integer(0, "indent", -1));
    if (indent < 0 || indent > kMaxIndent) {
      return absl::InvalidArgumentError(
          fmt::format("tojson indents by {}, not by 0 to {}", indent, kMaxIndent));
    }
  }
  const auto per_weight = static_cast<uint64_t>(6 + std::max<int64_t>(indent, 0) * value.Nesting());
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(value.Weight() * per_weight));
  Text out;
  if (!ToJson(value, static_cast<int>(indent), args.Flag(99, "sort_keys", false), out)) {
    BATON_RETURN_IF_ERROR(CheckDefined(value));
    return absl::InvalidArgumentError(
        fmt::format("a {} holds something that JSON cannot", value.TypeName()));
  }
  return Value(std::move(out));
}

Result Default(const Value& value, const Arguments& args, Budget&) {
  const bool replace = value.IsUndefined() || (args.Flag(1, "boolean", false) && !value.Truthy());
  if (!replace) return value;
  const Value* fallback = args.Get(0, "default_value");
  return fallback != nullptr ? *fallback : Value(Text());
}

Result LengthFilter(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const int64_t length, Length(value, budget));
  return Value(length);
}

Result ListFilter(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(auto items, Iterate(value, budget));
  return MakeList(std::move(items), budget);
}

Result First(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  return items.empty() ? Value::UndefinedBecause("an empty sequence has no first item")
                       : items.front();
}

Result Last(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  return items.empty() ? Value::UndefinedBecause("an empty sequence has no last item")
                       : items.back();
}

Result Reverse(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(auto items, Iterate(value, budget));
  std::reverse(items.begin(), items.end());
  if (value.text() == nullptr) return MakeList(std::move(items), budget);
  BATON_ASSIGN_OR_RETURN(Text out, Join(items, Text(), budget));
  return Value(std::move(out));
}

// item.a.b for attribute "a.b".
Result Attribute(const Value& item, std::string_view attribute, Budget& budget) {
  Value value = item;
  while (true) {
    const size_t dot = attribute.find('.');
    const Value key(Text::Template(attribute.substr(0, dot)));
    BATON_ASSIGN_OR_RETURN(value, GetItem(value, key, budget));
    if (dot == std::string_view::npos) return value;
    attribute.remove_prefix(dot + 1);
  }
}

Result JoinFilter(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(auto items, Iterate(value, budget));
  BATON_ASSIGN_OR_RETURN(const Text separator, args.String(0, "d", ""));
  if (args.Get(1, "attribute") != nullptr) {
    BATON_ASSIGN_OR_RETURN(const Text attribute, args.String(1, "attribute", ""));
    for (Value& item : items) {
      BATON_ASSIGN_OR_RETURN(item, Attribute(item, attribute.bytes(), budget));
    }
  }
  BATON_ASSIGN_OR_RETURN(Text out, Join(items, separator, budget));
  return Value(std::move(out));
}

Result MapFilter(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(auto items, Iterate(value, budget));
  if (args.positional.empty()) {
    BATON_ASSIGN_OR_RETURN(const Text attribute, args.String(0, "attribute", ""));
    const Value* fallback = args.Get(99, "default");
    for (Value& item : items) {
      BATON_ASSIGN_OR_RETURN(item, Attribute(item, attribute.bytes(), budget));
      if (item.IsUndefined() && fallback != nullptr) item = *fallback;
    }
  } else {
    BATON_ASSIGN_OR_RETURN(const Text name, args.String(0, "filter", ""));
    const Arguments rest = args.Rest(1);
    for (Value& item : items) {
      BATON_ASSIGN_OR_RETURN(item, ApplyFilter(name.bytes(), item, rest, budget));
    }
  }
  return MakeList(std::move(items), budget);
}

// select, reject (kByAttribute false), selectattr, rejectattr.
template <bool kByAttribute, bool kKeep>
Result Select(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  constexpr size_t kTestAt = kByAttribute ? 1 : 0;
  BATON_ASSIGN_OR_RETURN(const Text attribute,
                         kByAttribute ? args.String(0, "attribute", "") : Text());
  const bool has_test = args.positional.size() > kTestAt;
  BATON_ASSIGN_OR_RETURN(const Text test, args.String(kTestAt, "test", ""));
  const Arguments rest = args.Rest(kTestAt + 1);
  std::vector<Value> kept;
  for (const Value& item : items) {
    Value subject = item;
    if (kByAttribute) {
      BATON_ASSIGN_OR_RETURN(subject, Attribute(item, attribute.bytes(), budget));
    }
    bool passes = subject.Truthy();
    if (has_test) {
      BATON_ASSIGN_OR_RETURN(passes, ApplyTest(test.bytes(), subject, rest, budget));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeList(std::move(kept), budget);
}

Result Unique(const Value& value, const Arguments&, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  std::vector<Value> kept;
  for (const Value& item : items) {
    BATON_RETURN_IF_ERROR(budget.Spend(kept.size() * (1 + item.Weight() / 8)));
    const bool known = std::any_of(kept.begin(), kept.end(),
                                   [&item](const Value& each) { return Equal(each, item); });
    if (!known) kept.push_back(item);
  }
  return MakeList(std::move(kept), budget);
}

// Sorts by Compare; strings without regard to case unless `case_sensitive`.
absl::Status SortValues(std::vector<std::pair<Value, Value>>& keyed, bool case_sensitive,
                        Budget& budget) {
  for (auto& [key, item] : keyed) {
    if (!case_sensitive && key.text() != nullptr) key = Value(Lower(*key.text()));
  }
  absl::Status status;
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    if (!status.ok()) return false;
    const absl::StatusOr<bool> less = Compare("<", a.first, b.first, budget);
    if (!less.ok()) status = less.status();
    return less.ok() && *less;
  });
  return status;
}

Result Sort(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  const bool by_attribute = args.Get(2, "attribute") != nullptr;
  BATON_ASSIGN_OR_RETURN(const Text attribute, args.String(2, "attribute", ""));
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items) {
    Value key = item;
    if (by_attribute) {
      BATON_ASSIGN_OR_RETURN(key, Attribute(item, attribute.bytes(), budget));
    }
    keyed.emplace_back(std::move(key), item);
  }
  const bool reverse = args.Flag(0, "reverse", false);
  if (reverse) std::reverse(keyed.begin(), keyed.end());  // so that equal items keep their order
  BATON_RETURN_IF_ERROR(SortValues(keyed, args.Flag(1, "case_sensitive", false), budget));
  if (reverse) std::reverse(keyed.begin(), keyed.end());
  std::vector<Value> sorted;
  for (auto& [key, item] : keyed) sorted.push_back(std::move(item));
  return MakeList(std::move(sorted), budget);
}

Result Items(const Value& value, const Arguments&, Budget& budget) {
  if (value.IsUndefined()) return MakeList({}, budget);
  return CallMethod(value, "items", {}, budget);
}

Result DictSort(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Value items, CallMethod(value, "items", {}, budget));
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items.list()->items) {
    keyed.emplace_back(item.list()->items.front(), item);
  }
  BATON_RETURN_IF_ERROR(SortValues(keyed, args.Flag(0, "case_sensitive", false), budget));
  std::vector<Value> sorted;
  for (auto& [key, item] : keyed) sorted.push_back(std::move(item));
  return MakeList(std::move(sorted), budget);
}

template <bool kMax>
Result Extreme(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Value sorted, Sort(value, {}, budget));
  return kMax ? Last(sorted, args, budget) : First(sorted, args, budget);
}

Result Sum(const Value& value, const Arguments& args, Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const auto items, Iterate(value, budget));
  const bool by_attribute = args.Get(0, "attribute") != nullptr;
  BATON_ASSIGN_OR_RETURN(const Text attribute, args.String(0, "attribute", ""));
  Value sum(int64_t{0});
  for (const Value& item : items) {
    Value term = item;
    if (by_attribute) {
      BATON_ASSIGN_OR_RETURN(term, Attribute(item, attribute.bytes(), budget));
    }
    BATON_ASSIGN_OR_RETURN(sum, Arithmetic("+", sum, term, budget));
  }
  return sum;
}

Result Abs(const Value& value, const Arguments&, Budget&) {
  if (value.Is<double>()) return Value(std::fabs(value.AsDouble()));
  if (value.IsInteger() && value.AsInteger() >= 0) return Value(value.AsInteger());
  return Negate(value);
}

// The number a text begins to spell, or `fallback` when it is not a number as a whole.
template <typename Number>
Value Parsed(const Text& text, const Value& fallback) {
  const Text stripped = Strip(text, std::nullopt, true, true);
  const std::string_view bytes = stripped.bytes();
  const size_t sign = bytes.starts_with('+') ? 1 : 0;
  Number number{};
  const char* const end = bytes.data() + bytes.size();
  const auto read = std::from_chars(bytes.data() + sign, end, number);
  return read.ec == std::errc() && read.ptr == end ? Value(number) : fallback;
}

Result Int(const Value& value, const Arguments& args, Budget&) {
  const Value* given = args.Get(0, "default");
  const Value fallback = given != nullptr ? *given : Value(int64_t{0});
  if (value.IsInteger()) return Value(value.AsInteger());
  if (value.Is<double>()) {
    const double d = value.AsDouble();
    return std::fabs(d) < 9e18 ? Value(static_cast<int64_t>(d)) : fallback;
  }
  if (value.text() == nullptr) return fallback;
  const Value whole = Parsed<int64_t>(*value.text(), Value());
  if (!whole.IsUndefined()) return whole;
  const Value real = Parsed<double>(*value.text(), Value());
  const bool fits = !real.IsUndefined() && std::fabs(real.AsDouble()) < 9e18;
  return fits ? Value(static_cast<int64_t>(real.AsDouble())) : fallback;
}

Result Float(const Value& value, const Arguments& args, Budget&) {
  const Value* given = args.Get(0, "default");
  const Value fallback = given != nullptr ? *given : Value(0.0);
  if (value.IsNumber()) return Value(value.AsDouble());
  return value.text() == nullptr ? fallback : Parsed<double>(*value.text(), fallback);
}

Result Round(const Value& value, const Arguments& args, Budget&) {
  BATON_ASSIGN_OR_RETURN(const int64_t digits, args.Integer(0, "precision", 0));
  BATON_ASSIGN_OR_RETURN(const Text method, args.String(1, "method", "common"));
  BATON_RETURN_IF_ERROR(CheckDefined(value));
  if (!value.IsNumber() || digits < 0 || digits > 15) {
    return absl::InvalidArgumentError(
        fmt::format("a {} cannot be rounded to {} digits", value.TypeName(), digits));
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = value.AsDouble() * scale;
  if (method.bytes() == "ceil") return Value(std::ceil(scaled) / scale);
  if (method.bytes() == "floor") return Value(std::floor(scaled) / scale);
  return Value(std::nearbyint(scaled) / scale);
}

Result Same(const Value& value, const Arguments&, Budget&) { return value; }

constexpr std::pair<std::string_view, Filter> kFilters[] = {
    {"abs", Abs},
    {"capitalize", Changed<Capitalize>},
    {"count", LengthFilter},
    {"d", Default},
    {"default", Default},
    {"dictsort", DictSort},
    {"first", First},
    {"float", Float},
    {"indent", IndentFilter},
    {"int", Int},
    {"items", Items},
    {"join", JoinFilter},
    {"last", Last},
    {"length", LengthFilter},
    {"list", ListFilter},
    {"lower", Changed<Lower>},
    {"map", MapFilter},
    {"max", Extreme<true>},
    {"min", Extreme<false>},
    {"reject", Select<false, false>},
    {"rejectattr", Select<true, false>},
    {"replace", ReplaceFilter},
    {"reverse", Reverse},
    {"round", Round},
    {"safe", Same},
    {"select", Select<false, true>},
    {"selectattr", Select<true, true>},
    {"sort", Sort},
    {"string", String},
    {"sum", Sum},
    {"title", Changed<Title>},
    {"tojson", ToJsonFilter},
    {"trim", Trim},
    {"unique", Unique},
    {"upper", Changed<Upper>},
};

}  // namespace

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& value, const Arguments& args,
                                  Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.Spend(1));
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter(value, args, budget);
  }
  return absl::InvalidArgumentError(fmt::format("filter '{}' is not supported", name));
}

}  // namespace baton::text::jinja
