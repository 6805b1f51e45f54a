#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <map>
#include <string>
#include <utility>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "common/view.h"
#include "grammar/json_numbers.h"
#include "grammar/json_object.h"
#include "grammar/regex.h"

namespace baton::grammar {
namespace {

namespace json = boost::json;

constexpr int kMaxSchemaDepth = 64;

// They say nothing about what is valid.
constexpr std::array kAnnotations = {
    "title", "description", "default",    "examples", "$schema",   "$id",           "$comment",
    "$defs", "definitions", "deprecated", "readOnly", "writeOnly", "discriminator", "example"};
constexpr std::array kKeywords = {"$ref",
                                  "type",
                                  "enum",
                                  "const",
                                  "anyOf",
                                  "oneOf",
                                  "allOf",
                                  "properties",
                                  "required",
                                  "additionalProperties",
                                  "items",
                                  "minProperties",
                                  "maxItems",
                                  "maxProperties",
                                  "prefixItems",
                                  "minItems",
                                  "minLength",
                                  "maxLength",
                                  "pattern",
                                  "format",
                                  "minimum",
                                  "maximum",
                                  "exclusiveMinimum",
                                  "exclusiveMaximum"};

constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
    {"date", R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]))"},
    {"time", R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))"},
    {"date-time", R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
                  R"((\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))"},
    {"duration", R"(P(\d{1,6}W|(\d{1,6}Y(\d{1,6}M)?(\d{1,6}D)?|\d{1,6}M(\d{1,6}D)?|\d{1,6}D))"
                 R"((T\d{1,6}[HMS])?|T\d{1,6}[HMS]))"},
    {"email", R"([A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,32}){0,3}@)"
              R"([A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,3}\.[A-Za-z]{2,24})"},
    {"hostname", R"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
                 R"((\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?){0,7})"},
    {"ipv4", R"(((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))"},
    {"ipv6", R"(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4})"},
    {"uuid", R"([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"},
    {"uri", R"([A-Za-z][A-Za-z0-9+.-]{0,31}:[A-Za-z0-9/?#@!$&'()*+,;=:._~%-]{1,2000})"},
};


bool IsAnnotation(std::string_view key) {
  return std::ranges::find(kAnnotations, key) != kAnnotations.end() || key.starts_with("x-");
}

absl::Status Invalid(std::string_view what, const std::string& where) {
  return absl::InvalidArgumentError(fmt::format("{} at {}", what, where));
}

// "#/$defs/a~1b" to what is there; null when nothing is.
const json::value* AtPointer(const json::value& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const json::value* at = &root;
  while (!reference.empty()) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    std::string name(reference.substr(0, reference.find('/')));
    reference.remove_prefix(name.size());
    for (const auto& [escape, meant] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
      for (size_t i = 0; (i = name.find(escape, i)) != std::string::npos; ++i) {
        name.replace(i, 2, meant);
      }
    }
    if (!at->is_object()) return nullptr;
    at = at->get_object().if_contains(name);
    if (at == nullptr) return nullptr;
  }
  return at;
}

bool HasType(const json::value& value, std::string_view type) {
  switch (value.kind()) {
    case json::kind::null:
      return type == "null";
    case json::kind::bool_:
      return type == "boolean";
    case json::kind::string:
      return type == "string";
    case json::kind::array:
      return type == "array";
    case json::kind::object:
      return type == "object";
    case json::kind::double_:
      return type == "number";
    default:
      return type == "number" || type == "integer";
  }
}

class SchemaCompiler {
 public:
  SchemaCompiler(const json::value& root, const JsonValues& values)
      : root_(root), values_(values), grammar_(values.grammar()) {}

  absl::StatusOr<ExpressionId> Compile() {
    BATON_ASSIGN_OR_RETURN(const ExpressionId start, Reference("#", "#"));
    // Not as they are met, so that long chains of references do not nest.
    while (!pending_.empty()) {
      const auto [reference, rule] = pending_.back();
      pending_.pop_back();
      BATON_ASSIGN_OR_RETURN(const ExpressionId body,
                             Schema(*AtPointer(root_, reference), reference));
      grammar_.DefineRule(rule, body);
    }
    return start;
  }

 private:
  absl::StatusOr<ExpressionId> Schema(const json::value& schema, const std::string& where) {
    if (schema.is_bool()) {
      if (schema.get_bool()) return values_.Value();
      return Invalid("the schema is 'false', which nothing satisfies,", where);
    }
    if (!schema.is_object()) return Invalid("the schema is neither an object nor true", where);
    if (++depth_ > kMaxSchemaDepth) {
      return Invalid(fmt::format("the schema nests more than {} deep", kMaxSchemaDepth), where);
    }
    auto compiled = Object(schema.get_object(), where);
    --depth_;
    return compiled;
  }

  absl::StatusOr<ExpressionId> Object(const json::object& schema, const std::string& where) {
    std::vector<std::string> said;  // the keywords that are no annotations
    for (const json::key_value_pair& entry : schema) {
      const std::string_view key = View(entry.key());
      if (IsAnnotation(key)) continue;
      if (std::ranges::find(kKeywords, key) == kKeywords.end()) return Unknown(key, where);
      said.emplace_back(key);
    }
    if (said.empty()) return values_.Value();
    const auto is_alone = [&](std::string_view keyword) -> absl::Status {
      for (const std::string& other : said) {
        const bool fits = other == keyword || (other == "type" && !keyword.starts_with('$') &&
                                               !keyword.ends_with("Of"));
        if (!fits)
          return Invalid(fmt::format("'{}' beside '{}' is not supported", other, keyword), where);
      }
      return absl::OkStatus();
    };
    for (const char* keyword : {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"}) {
      const json::value* value = schema.if_contains(keyword);
      if (value == nullptr) continue;
      BATON_RETURN_IF_ERROR(is_alone(keyword));
      return Special(keyword, *value, schema, where);
    }
    return Typed(schema, where);
  }

  static absl::Status Unknown(std::string_view key, const std::string& where) {
    const std::vector<std::string> known(kKeywords.begin(), kKeywords.end());
    const std::string nearest = NearestName(key, known);
    return Invalid(fmt::format("the keyword '{}' is not supported{}", key.substr(0, 64),
                               nearest.empty() ? "" : fmt::format(" (is it '{}'?)", nearest)),
                   where);
  }

  absl::StatusOr<ExpressionId> Special(std::string_view keyword, const json::value& value,
                                       const json::object& schema, const std::string& where) {
    if (keyword == "$ref") {
      if (!value.is_string()) return Invalid("'$ref' is no string", where);
      return Reference(std::string(View(value.get_string())), where);
    }
    if (keyword == "const") return Values({&value}, schema, where);
    if (!value.is_array() || value.get_array().empty()) {
      return Invalid(fmt::format("'{}' is no array with something in it", keyword), where);
    }
    const json::array& array = value.get_array();
    if (keyword == "enum") {
      std::vector<const json::value*> members;
      for (const json::value& member : array) members.push_back(&member);
      return Values(members, schema, where);
    }
    if (keyword == "allOf" && array.size() > 1) {
      return Invalid("'allOf' with more than one schema is not supported", where);
    }
    std::vector<ExpressionId> choices;
    for (const json::value& member : array) {
      const std::string inside = fmt::format("{}/{}/{}", where, keyword, choices.size());
      BATON_ASSIGN_OR_RETURN(choices.emplace_back(), Schema(member, inside));
    }
    return grammar_.Choice(std::move(choices));
  }

  absl::StatusOr<ExpressionId> Reference(const std::string& reference, const std::string& where) {
    const auto known = rules_.find(reference);
    if (known != rules_.end()) return grammar_.Call(known->second);
    if (AtPointer(root_, reference) == nullptr) {
      return Invalid(
          fmt::format("'$ref' is '{}', which is nowhere in the schema", reference.substr(0, 128)),
          where);
    }
    const RuleId rule = grammar_.DeclareRule();
    rules_.emplace(reference, rule);
    pending_.emplace_back(reference, rule);
    return grammar_.Call(rule);
  }

  // Those of the values that have the schema's type, where it says one.
  absl::StatusOr<ExpressionId> Values(const std::vector<const json::value*>& members,
                                      const json::object& schema, const std::string& where) {
    BATON_ASSIGN_OR_RETURN(const std::vector<std::string> types, Types(schema, where));
    std::vector<std::string> scalars;
    std::vector<ExpressionId> choices;
    for (const json::value* member : members) {
      const bool fits = types.empty() || std::ranges::any_of(types, [&](const std::string& type) {
                          return HasType(*member, type);
                        });
      if (!fits) continue;
      const ExpressionId literal = values_.Literal(*member);
      if (grammar_[literal].kind == Expression::Kind::kBytes) {
        scalars.push_back(grammar_[literal].bytes);
      } else {
        choices.push_back(literal);
      }
    }
    if (!scalars.empty()) choices.push_back(grammar_.OneOf(std::move(scalars)));
    if (choices.empty()) return Invalid("none of the values has the schema's type", where);
    return grammar_.Choice(std::move(choices));
  }

  static absl::StatusOr<std::vector<std::string>> Types(const json::object& schema,
                                                        const std::string& where) {
    std::vector<std::string> types;
    const json::value* type = schema.if_contains("type");
    if (type == nullptr) return types;
    const auto add = [&](const json::value& value) -> absl::Status {
      static constexpr std::array kTypes = {"object",  "array",   "string", "number",
                                            "integer", "boolean", "null"};
      const bool known =
          value.is_string() && std::ranges::find(kTypes, View(value.get_string())) != kTypes.end();
      if (!known)
        return Invalid(
            "'type' is not object, array, string, number, integer, boolean or "
            "null",
            where);
      types.emplace_back(View(value.get_string()));
      return absl::OkStatus();
    };
    if (!type->is_array()) {
      BATON_RETURN_IF_ERROR(add(*type));
      return types;
    }
    for (const json::value& each : type->get_array()) BATON_RETURN_IF_ERROR(add(each));
    if (types.empty()) return Invalid("'type' has nothing in it", where);
    return types;
  }

  // What the keywords are about, where the schema does not say.
  static std::string ImpliedType(const json::object& schema) {
    constexpr std::pair<const char*, const char*> kImplied[] = {{"properties", "object"},
                                                                {"required", "object"},
                                                                {"additionalProperties", "object"},
                                                                {"minProperties", "object"},
                                                                {"maxProperties", "object"},
                                                                {"items", "array"},
                                                                {"prefixItems", "array"},
                                                                {"minItems", "array"},
                                                                {"maxItems", "array"},
                                                                {"pattern", "string"},
                                                                {"format", "string"},
                                                                {"minLength", "string"},
                                                                {"maxLength", "string"}};
    for (const auto& [keyword, type] : kImplied) {
      if (schema.contains(keyword)) return type;
    }
    return "number";
  }

  absl::StatusOr<ExpressionId> Typed(const json::object& schema, const std::string& where) {
    BATON_ASSIGN_OR_RETURN(std::vector<std::string> types, Types(schema, where));
    if (types.empty()) types.push_back(ImpliedType(schema));
    std::vector<ExpressionId> choices;
    for (const std::string& type : types) {
      BATON_ASSIGN_OR_RETURN(choices.emplace_back(), OfType(type, schema, where));
    }
    return grammar_.Choice(std::move(choices));
  }

  absl::StatusOr<ExpressionId> OfType(std::string_view type, const json::object& schema,
                                      const std::string& where) {
    const SubschemaCompiler compile = [this](const json::value& value, const std::string& inside) {
      return Schema(value, inside);
    };
    if (type == "object") return CompileObject(schema, where, values_, compile);
    if (type == "array") return CompileArray(schema, where, values_, compile);
    if (type == "string") return StringOf(schema, where);
    if (type == "boolean") return grammar_.OneOf({"true", "false"});
    if (type == "null") return grammar_.Bytes("null");
    return NumberOf(schema, where, type == "integer");
  }

  absl::StatusOr<ExpressionId> Matching(std::string_view pattern, bool whole,
                                        const std::string& where) {
    const RegexOptions options{
        .whole = whole,
        .character = [this](Grammar*, const CharacterSet& set) { return values_.Encoded(set); }};
    absl::StatusOr<ExpressionId> matched = ParseRegex(pattern, options, &grammar_);
    if (!matched.ok()) return Invalid(std::string(matched.status().message()), where + "/pattern");
    return grammar_.CallTo(values_.Quoted(*matched));
  }

  absl::StatusOr<ExpressionId> StringOf(const json::object& schema, const std::string& where) {
    const json::value* pattern = schema.if_contains("pattern");
    const json::value* format = schema.if_contains("format");
    const bool counted = schema.contains("minLength") || schema.contains("maxLength");
    if ((pattern != nullptr) + (format != nullptr) + counted > 1) {
      return Invalid("more than one of 'pattern', 'format' and a length is not supported", where);
    }
    if (pattern != nullptr) {
      if (!pattern->is_string()) return Invalid("'pattern' is no string", where);
      return Matching(View(pattern->get_string()), /*whole=*/false, where);
    }
    if (format != nullptr) {
      for (const auto& [name, regex] : kFormats) {
        const bool same = format->is_string() && View(format->get_string()) == name;
        if (same) return Matching(regex, /*whole=*/true, where);
      }
      return Invalid(
          fmt::format("the format {} is not supported", json::serialize(*format).substr(0, 64)),
          where);
    }
    BATON_ASSIGN_OR_RETURN(const int32_t least, CountKeyword(schema, "minLength", where, 0));
    BATON_ASSIGN_OR_RETURN(const int32_t most,
                           CountKeyword(schema, "maxLength", where, kWithoutEnd));
    if (most != kWithoutEnd && least > most) {
      return Invalid(fmt::format("'minLength' {} is above 'maxLength' {}", least, most), where);
    }
    if (!counted) return values_.String();
    return grammar_.CallTo(values_.Quoted(grammar_.Repeat(values_.Character(), least, most)));
  }

  absl::StatusOr<ExpressionId> NumberOf(const json::object& schema, const std::string& where,
                                        bool integer) {
    NumberBounds bounds;
    const auto read = [&](const char* keyword, bool open, std::optional<Decimal>* bound,
                          bool* is_open) -> absl::Status {
      const json::value* value = schema.if_contains(keyword);
      if (value == nullptr) return absl::OkStatus();
      if (bound->has_value()) {
        return Invalid(fmt::format("'{}' beside its other form is not supported", keyword), where);
      }
      if (!value->is_number()) return Invalid(fmt::format("'{}' is no number", keyword), where);
      const std::string text =
          value->is_double() ? fmt::format("{}", value->get_double()) : json::serialize(*value);
      absl::StatusOr<Decimal> decimal = ParseDecimal(text);
      if (!decimal.ok()) return Invalid(std::string(decimal.status().message()), where);
      *bound = *std::move(decimal);
      *is_open = open;
      return absl::OkStatus();
    };
    BATON_RETURN_IF_ERROR(read("minimum", false, &bounds.low, &bounds.low_open));
    BATON_RETURN_IF_ERROR(read("exclusiveMinimum", true, &bounds.low, &bounds.low_open));
    BATON_RETURN_IF_ERROR(read("maximum", false, &bounds.high, &bounds.high_open));
    BATON_RETURN_IF_ERROR(read("exclusiveMaximum", true, &bounds.high, &bounds.high_open));
    if (!bounds.low && !bounds.high) return integer ? values_.Integer() : values_.Number();
    return grammar_.CallTo(BoundedNumber(bounds, integer, &grammar_));
  }

  const json::value& root_;
  const JsonValues& values_;
  Grammar& grammar_;
  std::map<std::string, RuleId> rules_;
  std::vector<std::pair<std::string, RuleId>> pending_;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<ExpressionId> CompileJsonSchema(const json::value& schema,
                                               const JsonValues& values) {
  return SchemaCompiler(schema, values).Compile();
}

}  // namespace baton::grammar
