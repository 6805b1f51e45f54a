// The methods of strings, lists, dicts and `loop`.

#include <fmt/format.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/text_ops.h"

namespace baton::text::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result TextList(std::vector<Text> parts, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.Spend(4 * parts.size()));
  std::vector<Value> items;
  for (Text& part : parts) items.emplace_back(std::move(part));
  return MakeList(std::move(items), budget);
}

Result StripMethod(const Text& text, const Arguments& args, bool left, bool right) {
  const Value* chars = args.Get(0, "chars");
  if (chars == nullptr || chars->IsNone()) {
    return Value(Strip(text, std::nullopt, left, right));
  }
  BATON_ASSIGN_OR_RETURN(const Text set, args.String(0, "chars", ""));
  return Value(Strip(text, set.bytes(), left, right));
}

Result SplitMethod(const Text& text, const Arguments& args, bool from_right, Budget& budget) {
  const Value* separator = args.Get(0, "sep");
  BATON_ASSIGN_OR_RETURN(const int64_t limit, args.Integer(1, "maxsplit", -1));
  const bool by_space = separator == nullptr || separator->IsNone();
  BATON_ASSIGN_OR_RETURN(const Text sep, by_space ? Text() : args.String(0, "sep", ""));
  BATON_ASSIGN_OR_RETURN(
      std::vector<Text> parts,
      Split(text, by_space ? std::nullopt : std::optional(sep.bytes()), limit, from_right, budget));
  return TextList(std::move(parts), budget);
}

// startswith and endswith take a string or a tuple of them.
Result AffixMethod(const Text& text, const Arguments& args, bool at_start) {
  const Value* affix = args.Get(0, "prefix");
  std::vector<Value> choices;
  if (affix != nullptr && affix->list() != nullptr && affix->list()->is_tuple) {
    choices = affix->list()->items;
  } else if (affix != nullptr) {
    choices.push_back(*affix);
  }
  for (const Value& choice : choices) {
    if (choice.text() == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("startswith and endswith take a str, not a {}", choice.TypeName()));
    }
    const std::string_view part = choice.text()->bytes();
    if (at_start ? text.bytes().starts_with(part) : text.bytes().ends_with(part)) {
      return Value(true);
    }
  }
  if (choices.empty()) return absl::InvalidArgumentError("startswith and endswith take a str");
  return Value(false);
}

// find, rfind, index: in characters; -1 when there is none.
Result FindMethod(const Text& text, const Arguments& args, bool last, bool required,
                  Budget& budget) {
  BATON_ASSIGN_OR_RETURN(const Text what, args.String(0, "sub", ""));
  if (last) BATON_RETURN_IF_ERROR(budget.Spend(text.size() / Budget::kBytesPerStep * what.size()));
  const std::string_view bytes = text.bytes();
  size_t found = FindBytes(bytes, what.bytes());
  for (size_t next = found; last && next != std::string_view::npos;) {
    found = next;
    next = next < bytes.size() ? FindBytes(bytes, what.bytes(), next + 1) : std::string_view::npos;
  }
  if (found != std::string_view::npos) return Value(CharCount(bytes.substr(0, found)));
  if (required) return absl::InvalidArgumentError("substring not found");
  return Value(int64_t{-1});
}

Result CountMethod(const Text& text, const Arguments& args) {
  BATON_ASSIGN_OR_RETURN(const Text what, args.String(0, "sub", ""));
  if (what.empty()) return Value(CharCount(text.bytes()) + 1);
  int64_t count = 0;
  for (size_t at = FindBytes(text.bytes(), what.bytes()); at != std::string_view::npos;
       at = FindBytes(text.bytes(), what.bytes(), at + what.size())) {
    ++count;
  }
  return Value(count);
}

Value AllMatch(const Text& text, bool (*accepts)(unsigned char)) {
  return Value(!text.empty() && std::all_of(text.bytes().begin(), text.bytes().end(), accepts));
}

Result TextMethod(const Text& text, std::string_view name, const Arguments& args, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(text.size()));
  if (name == "strip") return StripMethod(text, args, true, true);
  if (name == "lstrip") return StripMethod(text, args, true, false);
  if (name == "rstrip") return StripMethod(text, args, false, true);
  if (name == "split") return SplitMethod(text, args, false, budget);
  if (name == "rsplit") return SplitMethod(text, args, true, budget);
  if (name == "splitlines") {
    return TextList(SplitLines(text, args.Flag(0, "keepends", false)), budget);
  }
  if (name == "startswith") return AffixMethod(text, args, true);
  if (name == "endswith") return AffixMethod(text, args, false);
  if (name == "find") return FindMethod(text, args, false, false, budget);
  if (name == "rfind") return FindMethod(text, args, true, false, budget);
  if (name == "index") return FindMethod(text, args, false, true, budget);
  if (name == "count") return CountMethod(text, args);
  if (name == "upper") return Value(Upper(text));
  if (name == "lower") return Value(Lower(text));
  if (name == "capitalize") return Value(Capitalize(text));
  if (name == "title") return Value(Title(text));
  if (name == "isdigit") return AllMatch(text, absl::ascii_isdigit);
  if (name == "isalpha") return AllMatch(text, absl::ascii_isalpha);
  if (name == "isalnum") return AllMatch(text, absl::ascii_isalnum);
  if (name == "replace") {
    BATON_ASSIGN_OR_RETURN(const Text old, args.String(0, "old", ""));
    BATON_ASSIGN_OR_RETURN(const Text replacement, args.String(1, "new", ""));
    BATON_ASSIGN_OR_RETURN(const int64_t count, args.Integer(2, "count", -1));
    BATON_ASSIGN_OR_RETURN(Text out, Replace(text, old.bytes(), replacement, count, budget));
    return Value(std::move(out));
  }
  if (name == "join") {
    const Value* items = args.Get(0, "iterable");
    BATON_ASSIGN_OR_RETURN(const auto parts, Iterate(items ? *items : Value(), budget));
    for (const Value& part : parts) {
      if (part.text() == nullptr) {
        return absl::InvalidArgumentError(
            fmt::format("join takes str items, not {}", part.TypeName()));
      }
    }
    BATON_ASSIGN_OR_RETURN(Text out, Join(parts, text, budget));
    return Value(std::move(out));
  }
  return absl::InvalidArgumentError(fmt::format("str has no method '{}'", name));
}

Result ListMethod(const List& list, std::string_view name, const Arguments& args, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(list.weight));
  const Value* item = args.Get(0, "value");
  const auto matches = [item](const Value& each) { return Equal(each, *item); };
  if (item != nullptr && name == "count") {
    return Value(int64_t{std::count_if(list.items.begin(), list.items.end(), matches)});
  }
  if (item != nullptr && name == "index") {
    const auto found = std::find_if(list.items.begin(), list.items.end(), matches);
    if (found == list.items.end()) return absl::InvalidArgumentError("the list has no such item");
    return Value(int64_t{found - list.items.begin()});
  }
  return absl::InvalidArgumentError(
      fmt::format("list has no method '{}' that leaves it as it is", name));
}

Result DictMethod(const Dict& dict, std::string_view name, const Arguments& args, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.Spend(dict.entries.size()));
  if (name == "get") {
    const Value* key = args.Get(0, "key");
    const Value* fallback = args.Get(1, "default");
    if (key == nullptr) return absl::InvalidArgumentError("get takes a key");
    const Value* found = dict.Find(*key);
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value::NoneValue();
  }
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") {
      items.push_back(key);
    } else if (name == "values") {
      items.push_back(value);
    } else if (name == "items") {
      BATON_ASSIGN_OR_RETURN(Value pair, MakeList({key, value}, budget, true));
      items.push_back(std::move(pair));
    }
  }
  if (name == "keys" || name == "values" || name == "items") {
    return MakeList(std::move(items), budget);
  }
  return absl::InvalidArgumentError(
      fmt::format("dict has no method '{}' that leaves it as it is", name));
}

}  // namespace

Result CallMethod(const Value& object, std::string_view name, const Arguments& args,
                  Budget& budget) {
  BATON_RETURN_IF_ERROR(CheckDefined(object));
  if (const Text* text = object.text()) return TextMethod(*text, name, args, budget);
  if (const List* list = object.list()) return ListMethod(*list, name, args, budget);
  if (const Dict* dict = object.dict()) return DictMethod(*dict, name, args, budget);
  if (const LoopState* loop = object.loop(); loop != nullptr && name == "cycle") {
    if (args.positional.empty()) return absl::InvalidArgumentError("cycle takes items");
    return args.positional[loop->index0 % args.positional.size()];
  }
  return absl::InvalidArgumentError(fmt::format("{} has no method '{}'", object.TypeName(), name));
}

}  // namespace baton::text::jinja
