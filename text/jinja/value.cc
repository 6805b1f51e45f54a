#include "text/jinja/value.h"

#include <algorithm>

namespace baton::text::jinja {

void Text::Append(const Text& other) {
  bytes_ += other.bytes_;
  origin_ += other.origin_;
}

void Text::Append(const Text& other, size_t begin, size_t count) {
  bytes_.append(other.bytes_, begin, count);
  origin_.append(other.origin_, begin, count);
}

void Text::AppendTemplate(std::string_view bytes) {
  bytes_ += bytes;
  origin_.append(bytes.size(), kTemplate);
}

void Text::AppendAs(std::string_view bytes, const Text& source, size_t at) {
  bytes_ += bytes;
  origin_.append(bytes.size(), source.origin_[at]);
}

Text Text::Slice(size_t begin, size_t end) const {
  Text slice;
  slice.Append(*this, begin, end - begin);
  return slice;
}

namespace {

constexpr uint64_t kHuge = uint64_t{1} << 55;

uint64_t AddWeights(uint64_t a, uint64_t b) { return std::min(a + b, kHuge); }

}  // namespace

Value::Value(List list) {
  for (const Value& item : list.items) {
    list.nesting = std::max(list.nesting, item.Nesting() + 1);
    list.weight = AddWeights(list.weight, item.Weight());
  }
  held_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Dict dict) {
  for (const auto& [key, value] : dict.entries) {
    dict.nesting = std::max({dict.nesting, key.Nesting() + 1, value.Nesting() + 1});
    dict.weight = AddWeights(dict.weight, AddWeights(key.Weight(), value.Weight()));
  }
  held_ = std::make_shared<const Dict>(std::move(dict));
}

int Value::Nesting() const {
  if (const List* held = list()) return held->nesting;
  if (const Dict* held = dict()) return held->nesting;
  return 0;
}

uint64_t Value::Weight() const {
  if (const Text* held = text()) return held->size() + 1;
  if (const List* held = list()) return held->weight;
  if (const Dict* held = dict()) return held->weight;
  return 1;
}

int64_t Value::AsInteger() const {
  if (const bool* b = std::get_if<bool>(&held_)) return *b ? 1 : 0;
  return std::get<int64_t>(held_);
}

double Value::AsDouble() const {
  if (const double* d = std::get_if<double>(&held_)) return *d;
  return static_cast<double>(AsInteger());
}

bool Value::Truthy() const {
  if (IsUndefined() || IsNone()) return false;
  if (IsInteger()) return AsInteger() != 0;
  if (Is<double>()) return AsDouble() != 0;
  if (const Text* held = text()) return !held->empty();
  if (const List* held = list()) return !held->items.empty();
  if (const Dict* held = dict()) return !held->entries.empty();
  return true;
}

const char* Value::TypeName() const {
  if (const List* held = list()) return held->is_tuple ? "tuple" : "list";
  constexpr const char* kNames[] = {"Undefined", "NoneType",    "bool",  "int",
                                    "float",     "str",         "list",  "dict",
                                    "Namespace", "LoopContext", "Macro", "function"};
  static_assert(std::size(kNames) == std::variant_size_v<Variant>);
  return kNames[held_.index()];
}

std::string Value::UndefinedReason() const {
  const auto* undefined = std::get_if<Undefined>(&held_);
  if (undefined == nullptr || undefined->what == nullptr) return "a value is undefined";
  return *undefined->what;
}

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (const Text* text = name.text(); text != nullptr && text->bytes() == key) return &value;
  }
  return nullptr;
}

const Value* Dict::Find(const Value& key) const {
  for (const auto& [name, value] : entries) {
    if (Equal(name, key)) return &value;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  for (auto& [name, old] : entries) {
    if (Equal(name, key)) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(std::move(key), std::move(value));
}

bool Equal(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) return a.AsInteger() == b.AsInteger();
    return a.AsDouble() == b.AsDouble();
  }
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes() == b.text()->bytes();
  if (const List* x = a.list(), *y = b.list(); x != nullptr && y != nullptr) {
    return x->is_tuple == y->is_tuple &&
           std::equal(x->items.begin(), x->items.end(), y->items.begin(), y->items.end(), Equal);
  }
  if (const Dict* x = a.dict(), *y = b.dict(); x != nullptr && y != nullptr) {
    return x->entries.size() == y->entries.size() &&
           std::all_of(x->entries.begin(), x->entries.end(), [y](const auto& entry) {
             const Value* other = y->Find(entry.first);
             return other != nullptr && Equal(entry.second, *other);
           });
  }
  if (a.IsUndefined() || a.IsNone())
    return a.IsUndefined() == b.IsUndefined() && a.IsNone() == b.IsNone();
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.macro() != nullptr && b.macro() != nullptr) {
    return a.macro()->definition == b.macro()->definition;
  }
  if (a.function() != nullptr && b.function() != nullptr) return *a.function() == *b.function();
  return false;
}

}  // namespace baton::text::jinja
