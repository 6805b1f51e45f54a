#include "grammar/json_object.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>
#include <utility>

#include "common/status_macros.h"

namespace baton::grammar {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxCount = 4096;
constexpr size_t kMaxNameBytes = 256;

std::string ToString(const json::string& text) { return {text.data(), text.size()}; }

absl::StatusOr<std::set<std::string>> RequiredNames(const json::object& schema,
                                                    const std::string& where) {
  std::set<std::string> names;
  const json::value* required = schema.if_contains("required");
  if (required == nullptr) return names;
  if (!required->is_array()) {
    return absl::InvalidArgumentError(fmt::format("'required' at {} is no array", where));
  }
  for (const json::value& name : required->get_array()) {
    if (!name.is_string()) {
      return absl::InvalidArgumentError(fmt::format("'required' at {} has no names only", where));
    }
    names.insert(ToString(name.get_string()));
  }
  return names;
}

// What an object's members are made of.
struct Members {
  std::vector<ExpressionId> listed;
  std::vector<bool> required;
  std::vector<std::string> names;
};

absl::StatusOr<Members> ReadMembers(const json::object& schema, const std::string& where,
                                    const JsonValues& values, const SubschemaCompiler& compile) {
  Members members;
  BATON_ASSIGN_OR_RETURN(std::set<std::string> required, RequiredNames(schema, where));
  const json::value* properties = schema.if_contains("properties");
  if (properties != nullptr && !properties->is_object()) {
    return absl::InvalidArgumentError(fmt::format("'properties' at {} is no object", where));
  }
  if (properties != nullptr) {
    for (const json::key_value_pair& entry : properties->get_object()) {
      const std::string name(entry.key().data(), entry.key().size());
      if (name.size() > kMaxNameBytes) {
        return absl::InvalidArgumentError(
            fmt::format("a name in 'properties' at {} has {} bytes, but at most {} are taken",
                        where, name.size(), kMaxNameBytes));
      }
      const std::string inside = fmt::format("{}/properties/{}", where, name);
      BATON_ASSIGN_OR_RETURN(const ExpressionId value, compile(entry.value(), inside));
      members.listed.push_back(values.grammar().CallTo(values.Member(name, value)));
      members.required.push_back(required.erase(name) > 0);
      members.names.push_back(name);
    }
  }
  // Required, but nowhere described: what additionalProperties says of it is said to its name.
  for (const std::string& name : required) {
    const json::value* additional = schema.if_contains("additionalProperties");
    ExpressionId value = values.Value();
    if (additional != nullptr && !(additional->is_bool() && additional->get_bool())) {
      BATON_ASSIGN_OR_RETURN(value, compile(*additional, where + "/additionalProperties"));
    }
    members.listed.push_back(values.grammar().CallTo(values.Member(name, value)));
    members.required.push_back(true);
    members.names.push_back(name);
  }
  return members;
}

}  // namespace

absl::StatusOr<int32_t> CountKeyword(const json::object& schema, const char* keyword,
                                     const std::string& where, int32_t fallback) {
  const json::value* value = schema.if_contains(keyword);
  if (value == nullptr) return fallback;
  if (!value->is_int64() || value->get_int64() < 0 || value->get_int64() > kMaxCount) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' at {} must be an integer in [0, {}]", keyword, where, kMaxCount));
  }
  return static_cast<int32_t>(value->get_int64());
}

absl::StatusOr<ExpressionId> CompileObject(const json::object& schema, const std::string& where,
                                           const JsonValues& values,
                                           const SubschemaCompiler& compile) {
  Grammar& grammar = values.grammar();
  BATON_ASSIGN_OR_RETURN(Members members, ReadMembers(schema, where, values, compile));
  BATON_ASSIGN_OR_RETURN(const int32_t least, CountKeyword(schema, "minProperties", where, 0));
  BATON_ASSIGN_OR_RETURN(const int32_t most,
                         CountKeyword(schema, "maxProperties", where, kWithoutEnd));
  const bool counted = least > 0 || most != kWithoutEnd;
  const json::value* additional = schema.if_contains("additionalProperties");
  const bool none = additional == nullptr ? schema.contains("properties") || !members.listed.empty()
                                          : additional->is_bool() && !additional->get_bool();
  if (counted && !members.listed.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "'minProperties' and 'maxProperties' beside 'properties' at {} are not supported", where));
  }
  if (most != kWithoutEnd && least > most) {
    return absl::InvalidArgumentError(
        fmt::format("'minProperties' {} is above 'maxProperties' {} at {}", least, most, where));
  }
  ExpressionId other = grammar.Nothing();
  if (!none) {
    ExpressionId value = values.Value();
    if (additional != nullptr && !additional->is_bool()) {
      BATON_ASSIGN_OR_RETURN(value, compile(*additional, where + "/additionalProperties"));
    }
    other = grammar.CallTo(grammar.Sequence(
        {values.OtherName(members.names), grammar.Bytes(":"), values.Space(), value}));
  }
  if (members.listed.empty()) {
    if (none || most == 0) return values.Bracketed('{', grammar.Nothing(), true, '}');
    return values.Bracketed('{', values.Listed(other, std::max(least, 1), most), least == 0, '}');
  }
  if (!none) {
    members.listed.push_back(values.Listed(other, 1, kWithoutEnd));
    members.required.push_back(false);
  }
  const bool may_be_empty = std::ranges::find(members.required, true) == members.required.end();
  // The list itself may be empty, which Bracketed would give twice; that does no harm.
  return values.Bracketed(
      '{', grammar.List(std::move(members.listed), std::move(members.required), values.Comma()),
      may_be_empty, '}');
}

absl::StatusOr<ExpressionId> CompileArray(const json::object& schema, const std::string& where,
                                          const JsonValues& values,
                                          const SubschemaCompiler& compile) {
  Grammar& grammar = values.grammar();
  BATON_ASSIGN_OR_RETURN(const int32_t least, CountKeyword(schema, "minItems", where, 0));
  BATON_ASSIGN_OR_RETURN(const int32_t most, CountKeyword(schema, "maxItems", where, kWithoutEnd));
  if (most != kWithoutEnd && least > most) {
    return absl::InvalidArgumentError(
        fmt::format("'minItems' {} is above 'maxItems' {} at {}", least, most, where));
  }
  std::vector<ExpressionId> first;  // of prefixItems
  if (const json::value* prefix = schema.if_contains("prefixItems")) {
    if (!prefix->is_array()) {
      return absl::InvalidArgumentError(fmt::format("'prefixItems' at {} is no array", where));
    }
    for (const json::value& item : prefix->get_array()) {
      const std::string inside = fmt::format("{}/prefixItems/{}", where, first.size());
      BATON_ASSIGN_OR_RETURN(const ExpressionId compiled, compile(item, inside));
      first.push_back(grammar.CallTo(compiled));
    }
  }
  const json::value* items = schema.if_contains("items");
  const bool closed = items != nullptr && items->is_bool() && !items->get_bool();
  ExpressionId item = values.Value();
  if (items != nullptr && !items->is_bool()) {
    BATON_ASSIGN_OR_RETURN(item, compile(*items, where + "/items"));
    item = grammar.CallTo(item);
  }
  const auto prefix_count = static_cast<int32_t>(first.size());
  int32_t longest = most;
  if (closed && (most == kWithoutEnd || most > prefix_count)) longest = prefix_count;
  if (longest != kWithoutEnd && longest < least) {
    return absl::InvalidArgumentError(fmt::format(
        "'minItems' {} at {} is more than the {} items that there can be", least, where, longest));
  }
  if (longest == 0) return values.Bracketed('[', grammar.Nothing(), true, ']');
  if (first.empty()) {
    return values.Bracketed('[', values.Listed(item, std::max(least, 1), longest), least == 0, ']');
  }
  // All of the prefix that fits, then as many others as there may be.
  std::vector<ExpressionId> parts;
  for (int32_t i = 0; i < prefix_count && (longest == kWithoutEnd || i < longest); ++i) {
    if (i > 0) parts.push_back(values.Comma());
    parts.push_back(first[static_cast<size_t>(i)]);
  }
  if (longest == kWithoutEnd || longest > prefix_count) {
    parts.push_back(grammar.Repeat(grammar.Sequence({values.Comma(), item}),
                                   std::max(least - prefix_count, 0),
                                   longest == kWithoutEnd ? kWithoutEnd : longest - prefix_count));
  }
  return values.Bracketed('[', grammar.Sequence(std::move(parts)), false, ']');
}

}  // namespace baton::grammar
