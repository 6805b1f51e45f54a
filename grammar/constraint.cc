#include "grammar/constraint.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "grammar/expression.h"
#include "grammar/json_schema.h"
#include "grammar/json_values.h"
#include "grammar/lazy_dfa.h"
#include "grammar/regex.h"

namespace baton::grammar {
namespace {

namespace json = boost::json;

constexpr int kMaxNesting = 8;
constexpr int64_t kMaxTimes = 64;

absl::Status Unsound(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("the constraint {}", what));
}

class ConstraintCompiler {
 public:
  explicit ConstraintCompiler(Grammar* grammar) : grammar_(*grammar), values_(grammar) {}

  absl::StatusOr<ExpressionId> Compile(const json::value& value, int depth) {
    if (depth > kMaxNesting) {
      return Unsound(fmt::format("nests more than {} deep", kMaxNesting));
    }
    if (!value.is_object()) return Unsound("is no JSON object");
    const json::object& object = value.get_object();
    if (const json::value* regex = object.if_contains("regex")) return Regex(*regex);
    if (const json::value* texts = object.if_contains("choice")) return Choice(*texts);
    if (const json::value* schema = object.if_contains("json_schema")) {
      return CompileJsonSchema(*schema, values_);
    }
    if (object.contains("json_object")) return values_.AnyObject();
    if (object.contains("repeat")) return Repeat(object, depth);
    for (const char* key : {"sequence", "any_of"}) {
      const json::value* parts = object.if_contains(key);
      if (parts == nullptr) continue;
      if (!parts->is_array()) return Unsound(fmt::format("has a '{}' that is no array", key));
      std::vector<ExpressionId> compiled;
      for (const json::value& part : parts->get_array()) {
        BATON_ASSIGN_OR_RETURN(compiled.emplace_back(), Compile(part, depth + 1));
      }
      return key == std::string_view("any_of") ? grammar_.Choice(std::move(compiled))
                                               : grammar_.Sequence(std::move(compiled));
    }
    return Unsound("is of no known kind");
  }

 private:
  absl::StatusOr<ExpressionId> Regex(const json::value& regex) {
    if (!regex.is_string()) return Unsound("has a 'regex' that is no string");
    return ParseRegex({regex.get_string().data(), regex.get_string().size()}, {}, &grammar_);
  }

  absl::StatusOr<ExpressionId> Choice(const json::value& texts) {
    if (!texts.is_array()) return Unsound("has a 'choice' that is no array");
    std::vector<std::string> choices;
    for (const json::value& text : texts.get_array()) {
      if (!text.is_string()) return Unsound("has a choice that is no string");
      choices.emplace_back(text.get_string().data(), text.get_string().size());
    }
    return grammar_.OneOf(std::move(choices));
  }

  absl::StatusOr<ExpressionId> Repeat(const json::object& object, int depth) {
    BATON_ASSIGN_OR_RETURN(const ExpressionId part, Compile(object.at("repeat"), depth + 1));
    const auto count = [&](const char* key) -> int64_t {
      const json::value* value = object.if_contains(key);
      return value != nullptr && value->is_int64() ? value->get_int64() : -1;
    };
    const int64_t least = count("least");
    const int64_t most = count("most");
    const json::value* separator = object.if_contains("separator");
    if (least < 1 || most < least || most > kMaxTimes || separator == nullptr ||
        !separator->is_string()) {
      return Unsound(
          fmt::format("repeats {} to {} times, but must be from 1 to {} with a separator", least,
                      most, kMaxTimes));
    }
    const ExpressionId rule = grammar_.CallTo(part);
    const ExpressionId between =
        grammar_.Bytes({separator->get_string().data(), separator->get_string().size()});
    return grammar_.Sequence(
        {rule, grammar_.Repeat(grammar_.Sequence({between, rule}), static_cast<int32_t>(least - 1),
                               static_cast<int32_t>(most - 1))});
  }

  Grammar& grammar_;
  const JsonValues values_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Automaton>> CompileConstraint(std::string_view description) {
  if (description.size() > kMaxConstraintBytes) {
    return Unsound(fmt::format("has {} bytes, but at most {} are taken", description.size(),
                               kMaxConstraintBytes));
  }
  json::parse_options options;
  options.max_depth = 64;
  json::error_code error;
  const json::value value =
      json::parse({description.data(), description.size()}, error, {}, options);
  if (error) return Unsound(fmt::format("is not JSON: {}", error.message()));
  Grammar grammar;
  ConstraintCompiler compiler(&grammar);
  BATON_ASSIGN_OR_RETURN(const ExpressionId body, compiler.Compile(value, 0));
  const RuleId rule = grammar.DeclareRule();
  grammar.DefineRule(rule, body);
  BATON_ASSIGN_OR_RETURN(std::shared_ptr<const Automaton> automaton,
                         Automaton::Create(grammar, rule));
  LazyDfa dfa(automaton);
  if (dfa.begin() == LazyDfa::kDead) {
    return Unsound(fmt::format("can begin in more than {} ways", LazyDfa::kMaxVisits));
  }
  if (!dfa.goes_on(dfa.begin())) return Unsound("allows only the empty text");
  return automaton;
}

std::string RegexConstraint(std::string_view pattern) {
  return json::serialize(
      json::object{{"regex", json::string_view(pattern.data(), pattern.size())}});
}

std::string JsonSchemaConstraint(std::string_view schema) {
  return fmt::format(R"({{"json_schema": {}}})", schema);
}

}  // namespace baton::grammar
