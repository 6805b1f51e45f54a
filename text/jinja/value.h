#pragma once

// Values of the template language. Strings remember, byte by byte, who wrote them: the template or
// a user. Every operation keeps that mark, so that in the end only the template's own text may name
// special tokens.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace baton::text::jinja {

// A string and the writer of each byte of it.
class Text {
 public:
  Text() = default;
  static Text Template(std::string_view bytes) { return Text(bytes, kTemplate); }
  static Text User(std::string_view bytes) { return Text(bytes, kUser); }

  std::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool IsUser(size_t at) const { return origin_[at] == kUser; }

  void Append(const Text& other);
  void Append(const Text& other, size_t begin, size_t count);
  void AppendTemplate(std::string_view bytes);
  // Bytes that stand for byte `at` of `source` (an escape, another case): its writer wrote them.
  void AppendAs(std::string_view bytes, const Text& source, size_t at);
  Text Slice(size_t begin, size_t end) const;

 private:
  static constexpr char kTemplate = 0;
  static constexpr char kUser = 1;

  Text(std::string_view bytes, char origin) : bytes_(bytes), origin_(bytes.size(), origin) {}

  std::string bytes_;
  std::string origin_;  // kTemplate or kUser for each byte
};

class Value;
struct List;
struct Dict;
struct Namespace;
struct LoopState;
struct Statement;

struct Undefined {
  std::shared_ptr<const std::string> what;  // "'x' is undefined", for the error when it is used
};
struct None {};
struct Macro {
  const Statement* definition;  // lives as long as the template
};
enum class Function { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

// Immutable but for Namespace and LoopState. Cheap to copy.
class Value {
 public:
  using Variant =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>, std::shared_ptr<const LoopState>, Macro, Function>;

  Value() = default;  // undefined, without a reason
  explicit Value(bool b) : held_(b) {}
  explicit Value(int64_t i) : held_(i) {}
  explicit Value(double d) : held_(d) {}
  explicit Value(Text text) : held_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(List list);
  explicit Value(Dict dict);
  explicit Value(std::shared_ptr<Namespace> space) : held_(std::move(space)) {}
  explicit Value(std::shared_ptr<const LoopState> loop) : held_(std::move(loop)) {}
  explicit Value(Macro macro) : held_(macro) {}
  explicit Value(Function function) : held_(function) {}
  static Value NoneValue() {
    Value value;
    value.held_ = None{};
    return value;
  }
  static Value UndefinedBecause(std::string what) {
    Value value;
    value.held_ = Undefined{std::make_shared<const std::string>(std::move(what))};
    return value;
  }

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(held_);
  }
  bool IsUndefined() const { return Is<Undefined>(); }
  bool IsNone() const { return Is<None>(); }
  bool IsInteger() const { return Is<int64_t>() || Is<bool>(); }  // as in Python
  bool IsNumber() const { return IsInteger() || Is<double>(); }
  bool IsCallable() const { return Is<Macro>() || Is<Function>(); }

  // The thing itself, or null when the value is something else.
  const Text* text() const { return Get<Text>(); }
  const List* list() const { return Get<List>(); }
  const Dict* dict() const { return Get<Dict>(); }
  const LoopState* loop() const { return Get<LoopState>(); }
  Namespace* name_space() const {
    const auto* held = std::get_if<std::shared_ptr<Namespace>>(&held_);
    return held == nullptr ? nullptr : held->get();
  }
  const Macro* macro() const { return std::get_if<Macro>(&held_); }
  const Function* function() const { return std::get_if<Function>(&held_); }

  int64_t AsInteger() const;  // of an integer or bool
  double AsDouble() const;    // of any number
  bool Truthy() const;
  const char* TypeName() const;  // as Python calls it
  std::string UndefinedReason() const;
  // Levels of lists and dicts inside each other; 0 for all else.
  int Nesting() const;
  // How much there is to visit, counted as often as it is reachable: what printing or comparing
  // costs. A list may hold one list twice, which may hold ..., so this can be far above the memory.
  uint64_t Weight() const;

 private:
  template <typename T>
  const T* Get() const {
    const auto* held = std::get_if<std::shared_ptr<const T>>(&held_);
    return held == nullptr ? nullptr : held->get();
  }

  Variant held_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int nesting = 1;      // set by Value
  uint64_t weight = 1;  // set by Value
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion, keys unique
  int nesting = 1;                               // set by Value
  uint64_t weight = 1;                           // set by Value

  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;
  void Set(Value key, Value value);
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// What `loop` is in one iteration of a for statement.
struct LoopState {
  std::shared_ptr<const List> items;
  size_t index0 = 0;
};

bool Equal(const Value& a, const Value& b);

// str() and repr() of Python.
Text ToText(const Value& value);
Text Repr(const Value& value);

// json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys); indent < 0: one line.
// False when the value holds something that JSON cannot.
bool ToJson(const Value& value, int indent, bool sort_keys, Text& out);

}  // namespace baton::text::jinja
