#include "text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/status_macros.h"
#include "text/jinja/text_ops.h"

namespace baton::text::jinja {
namespace {

constexpr int kMaxNesting = 100;

absl::Status Unsupported(std::string_view op, const Value& a, const Value& b) {
  BATON_RETURN_IF_ERROR(CheckDefined(a));
  BATON_RETURN_IF_ERROR(CheckDefined(b));
  return absl::InvalidArgumentError(
      fmt::format("'{}' does not work between {} and {}", op, a.TypeName(), b.TypeName()));
}

absl::Status Overflow(std::string_view op, const Value& a, const Value& b) {
  return absl::InvalidArgumentError(
      fmt::format("{} {} {} is beyond 64-bit integers", a.AsInteger(), op, b.AsInteger()));
}

absl::StatusOr<Value> IntegerPower(const Value& a, const Value& b) {
  int64_t result = 1;
  const int64_t base = a.AsInteger();
  if (base == 1 || base == 0 || base == -1) {
    const bool even = b.AsInteger() % 2 == 0;
    return Value(b.AsInteger() == 0 ? int64_t{1} : base == -1 && even ? int64_t{1} : base);
  }
  for (int64_t i = 0; i < b.AsInteger(); ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return Overflow("**", a, b);
  }
  return Value(result);
}

absl::StatusOr<Value> IntegerArithmetic(std::string_view op, const Value& a, const Value& b) {
  const int64_t x = a.AsInteger();
  const int64_t y = b.AsInteger();
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(x, y, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(x, y, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(x, y, &result);
  } else if (y == 0 || (x == std::numeric_limits<int64_t>::min() && y == -1)) {
    if (y == 0) return absl::InvalidArgumentError("division by zero");
    overflow = true;
  } else {  // "//" and "%" round towards minus infinity
    const bool adjust = x % y != 0 && (x < 0) != (y < 0);
    result = op == "//" ? x / y - adjust : x % y + (adjust ? y : 0);
  }
  if (overflow) return Overflow(op, a, b);
  return Value(result);
}

absl::StatusOr<Value> NumberArithmetic(std::string_view op, const Value& a, const Value& b) {
  const bool integers = a.IsInteger() && b.IsInteger();
  if (op == "**" && integers && b.AsInteger() >= 0) return IntegerPower(a, b);
  if (integers && op != "/" && op != "**") return IntegerArithmetic(op, a, b);
  const double x = a.AsDouble();
  const double y = b.AsDouble();
  if (op == "+") return Value(x + y);
  if (op == "-") return Value(x - y);
  if (op == "*") return Value(x * y);
  if (op == "**") return Value(std::pow(x, y));
  if (y == 0) return absl::InvalidArgumentError("division by zero");
  if (op == "/") return Value(x / y);
  if (op == "//") return Value(std::floor(x / y));
  const double remainder = std::fmod(x, y);
  return Value(remainder != 0 && (remainder < 0) != (y < 0) ? remainder + y : remainder);
}

absl::StatusOr<Value> Repeat(const Value& sequence, int64_t times, Budget& budget) {
  const uint64_t count = times < 0 ? 0 : static_cast<uint64_t>(times);
  if (const Text* text = sequence.text()) {
    if (!text->empty() && count > Budget::kMaxTextBytes) {
      return budget.SpendOnBytes(std::numeric_limits<uint64_t>::max());
    }
    BATON_RETURN_IF_ERROR(budget.SpendOnBytes(text->size() * count));
    Text out;
    for (uint64_t i = 0; i < count && !text->empty(); ++i) out.Append(*text);
    return Value(std::move(out));
  }
  const List& list = *sequence.list();
  std::vector<Value> items;
  for (uint64_t i = 0; i < count && !list.items.empty(); ++i) {
    BATON_RETURN_IF_ERROR(budget.Spend(list.items.size()));
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return MakeList(std::move(items), budget, list.is_tuple);
}

absl::StatusOr<bool> Less(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) return a.AsInteger() < b.AsInteger();
    return a.AsDouble() < b.AsDouble();
  }
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes() < b.text()->bytes();
  if (a.list() != nullptr && b.list() != nullptr && a.list()->is_tuple == b.list()->is_tuple) {
    const auto& x = a.list()->items;
    const auto& y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!Equal(x[i], y[i])) return Less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  return Unsupported("<", a, b);
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(container.Weight()));
  if (const Text* text = container.text()) {
    if (item.text() == nullptr) return Unsupported("in", item, container);
    return FindBytes(text->bytes(), item.text()->bytes()) != std::string_view::npos;
  }
  if (const List* list = container.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&item](const Value& each) { return Equal(each, item); });
  }
  if (const Dict* dict = container.dict()) return dict->Find(item) != nullptr;
  if (container.IsUndefined()) return false;
  return Unsupported("in", item, container);
}

absl::StatusOr<std::optional<int64_t>> Bound(const Value& value) {
  if (value.IsUndefined() || value.IsNone()) return std::nullopt;
  if (!value.IsInteger()) {
    return absl::InvalidArgumentError(
        fmt::format("a slice bound is a {}, not an int", value.TypeName()));
  }
  return value.AsInteger();
}

// The indexes that start:stop:step picks from `length` items, as Python does.
std::vector<size_t> SliceIndexes(std::optional<int64_t> start, std::optional<int64_t> stop,
                                 int64_t step, int64_t length) {
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? length : length - 1;
  const auto clamp = [&](int64_t bound) {
    return bound < 0 ? (bound < -length ? low : std::max(bound + length, low))
                     : std::min(bound, high);
  };
  const int64_t begin = start ? clamp(*start) : (step > 0 ? low : high);
  const int64_t end = stop ? clamp(*stop) : (step > 0 ? high : low);
  std::vector<size_t> indexes;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    indexes.push_back(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return indexes;
}

}  // namespace

absl::Status CheckDefined(const Value& value) {
  if (!value.IsUndefined()) return absl::OkStatus();
  return absl::InvalidArgumentError(value.UndefinedReason());
}

absl::StatusOr<Value> MakeList(std::vector<Value> items, Budget& budget, bool is_tuple) {
  BATON_RETURN_IF_ERROR(budget.Spend(items.size()));
  Value value(List{std::move(items), is_tuple});
  if (value.Nesting() <= kMaxNesting) return value;
  return absl::ResourceExhaustedError(
      fmt::format("the chat template nests lists more than {} deep", kMaxNesting));
}

absl::StatusOr<Value> MakeDict(Dict dict, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.Spend(dict.entries.size()));
  Value value(std::move(dict));
  if (value.Nesting() <= kMaxNesting) return value;
  return absl::ResourceExhaustedError(
      fmt::format("the chat template nests dicts more than {} deep", kMaxNesting));
}

absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& a, const Value& b,
                                 Budget& budget) {
  if (a.IsNumber() && b.IsNumber()) return NumberArithmetic(op, a, b);
  if (op == "+" && a.text() != nullptr && b.text() != nullptr) {
    BATON_RETURN_IF_ERROR(budget.SpendOnBytes(a.text()->size() + b.text()->size()));
    Text out = *a.text();
    out.Append(*b.text());
    return Value(std::move(out));
  }
  const List* x = a.list();
  const List* y = b.list();
  if (op == "+" && x != nullptr && y != nullptr && x->is_tuple == y->is_tuple) {
    std::vector<Value> items = x->items;
    items.insert(items.end(), y->items.begin(), y->items.end());
    return MakeList(std::move(items), budget, x->is_tuple);
  }
  const auto is_sequence = [](const Value& v) {
    return v.text() != nullptr || v.list() != nullptr;
  };
  if (op == "*" && is_sequence(a) && b.IsInteger()) return Repeat(a, b.AsInteger(), budget);
  if (op == "*" && is_sequence(b) && a.IsInteger()) return Repeat(b, a.AsInteger(), budget);
  return Unsupported(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.Is<double>()) return Value(-value.AsDouble());
  if (value.IsInteger()) return IntegerArithmetic("-", Value(int64_t{0}), value);
  BATON_RETURN_IF_ERROR(CheckDefined(value));
  return absl::InvalidArgumentError(fmt::format("a {} cannot be negated", value.TypeName()));
}

absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  if (op == "in") return Contains(b, a, budget);
  if (op == "not in") {
    BATON_ASSIGN_OR_RETURN(const bool contains, Contains(b, a, budget));
    return !contains;
  }
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(std::min(a.Weight(), b.Weight())));
  if (op == "==") return Equal(a, b);
  if (op == "!=") return !Equal(a, b);
  if (op == "<") return Less(a, b);
  if (op == ">") return Less(b, a);
  const bool flip = op == "<=";
  BATON_ASSIGN_OR_RETURN(const bool less, flip ? Less(b, a) : Less(a, b));
  const bool unordered =
      a.IsNumber() && b.IsNumber() && (std::isnan(a.AsDouble()) || std::isnan(b.AsDouble()));
  return !less && !unordered;
}

absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (const List* list = value.list()) {
    BATON_RETURN_IF_ERROR(budget.Spend(list->items.size()));
    return list->items;
  }
  if (const Dict* dict = value.dict()) {
    BATON_RETURN_IF_ERROR(budget.Spend(dict->entries.size()));
    for (const auto& [key, item] : dict->entries) items.push_back(key);
    return items;
  }
  if (const Text* text = value.text()) {
    BATON_RETURN_IF_ERROR(budget.Spend(8 * text->size()));
    const std::vector<size_t> starts = CharStarts(text->bytes());
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      items.emplace_back(text->Slice(starts[i], starts[i + 1]));
    }
    return items;
  }
  if (value.IsUndefined()) return items;
  return absl::InvalidArgumentError(fmt::format("a {} cannot be iterated", value.TypeName()));
}

absl::StatusOr<int64_t> Length(const Value& value, Budget& budget) {
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  if (const Text* text = value.text()) {
    BATON_RETURN_IF_ERROR(budget.SpendOnBytes(text->size()));
    return CharCount(text->bytes());
  }
  if (value.IsUndefined()) return 0;
  return absl::InvalidArgumentError(fmt::format("a {} has no length", value.TypeName()));
}

absl::StatusOr<Value> GetAttribute(const Value& object, std::string_view name) {
  BATON_RETURN_IF_ERROR(CheckDefined(object));
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->Find(name)) return *found;
  } else if (const Namespace* space = object.name_space()) {
    const auto found = space->attributes.find(name);
    if (found != space->attributes.end()) return found->second;
  } else if (const LoopState* loop = object.loop()) {
    const std::vector<Value>& items = loop->items->items;
    const auto count = static_cast<int64_t>(items.size());
    const auto index0 = static_cast<int64_t>(loop->index0);
    if (name == "index") return Value(index0 + 1);
    if (name == "index0") return Value(index0);
    if (name == "revindex") return Value(count - index0);
    if (name == "revindex0") return Value(count - index0 - 1);
    if (name == "first") return Value(index0 == 0);
    if (name == "last") return Value(index0 + 1 == count);
    if (name == "length") return Value(count);
    if (name == "depth") return Value(int64_t{1});  // more only in recursive loops
    if (name == "depth0") return Value(int64_t{0});
    if (name == "previtem" && index0 > 0) return items[index0 - 1];
    if (name == "nextitem" && index0 + 1 < count) return items[index0 + 1];
  }
  return Value::UndefinedBecause(
      fmt::format("'{} object' has no attribute '{}'", object.TypeName(), name));
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Budget& budget) {
  BATON_RETURN_IF_ERROR(CheckDefined(object));
  if (key.IsInteger() && (object.list() != nullptr || object.text() != nullptr)) {
    BATON_ASSIGN_OR_RETURN(const int64_t length, Length(object, budget));
    const int64_t index = key.AsInteger() + (key.AsInteger() < 0 ? length : 0);
    if (index >= 0 && index < length) {
      if (const List* list = object.list()) return list->items[index];
      BATON_RETURN_IF_ERROR(budget.SpendOnBytes(object.text()->size()));
      const std::vector<size_t> starts = CharStarts(object.text()->bytes());
      return Value(object.text()->Slice(starts[index], starts[index + 1]));
    }
  } else if (const Dict* dict = object.dict()) {
    BATON_RETURN_IF_ERROR(budget.Spend(dict->entries.size()));
    if (const Value* found = dict->Find(key)) return *found;
  } else if (key.text() != nullptr) {
    return GetAttribute(object, key.text()->bytes());
  }
  BATON_RETURN_IF_ERROR(SpendOnPrinting(key, budget));
  return Value::UndefinedBecause(fmt::format("'{} object' has no element {}", object.TypeName(),
                                             Repr(key).bytes().substr(0, 100)));
}

absl::StatusOr<Value> Slice(const Value& object, const Value& start, const Value& stop,
                            const Value& step, Budget& budget) {
  BATON_RETURN_IF_ERROR(CheckDefined(object));
  BATON_ASSIGN_OR_RETURN(const auto first, Bound(start));
  BATON_ASSIGN_OR_RETURN(const auto last, Bound(stop));
  BATON_ASSIGN_OR_RETURN(const auto stride, Bound(step));
  if (stride == 0) return absl::InvalidArgumentError("a slice step is zero");
  if (object.list() == nullptr && object.text() == nullptr) {
    return absl::InvalidArgumentError(fmt::format("a {} cannot be sliced", object.TypeName()));
  }
  BATON_ASSIGN_OR_RETURN(const int64_t length, Length(object, budget));
  BATON_RETURN_IF_ERROR(budget.Spend(1 + static_cast<uint64_t>(length) / 2));
  const std::vector<size_t> indexes = SliceIndexes(first, last, stride.value_or(1), length);
  if (const List* list = object.list()) {
    std::vector<Value> items;
    for (const size_t index : indexes) items.push_back(list->items[index]);
    return MakeList(std::move(items), budget, list->is_tuple);
  }
  const Text& text = *object.text();
  const std::vector<size_t> starts = CharStarts(text.bytes());
  Text out;
  for (const size_t index : indexes) {
    out.Append(text, starts[index], starts[index + 1] - starts[index]);
  }
  return Value(std::move(out));
}

}  // namespace baton::text::jinja
