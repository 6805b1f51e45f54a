#include "router/constraint_fields.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <vector>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "common/view.h"
#include "grammar/constraint.h"

namespace baton::router {
namespace {

namespace json = boost::json;

absl::StatusOr<std::string> RegexOf(const json::value& regex, std::string_view where) {
  BATON_ASSIGN_OR_RETURN(const std::string pattern, JsonText(regex, where));
  return grammar::RegexConstraint(pattern);
}

absl::StatusOr<std::string> ChoiceOf(const json::value& choice, std::string_view where) {
  if (!choice.is_array() || choice.get_array().empty()) {
    return WrongType(where, "an array of strings with something in it", choice);
  }
  for (const json::value& text : choice.get_array()) {
    if (!text.is_string()) return WrongType(where, "an array of strings", text);
  }
  return json::serialize(json::object{{"choice", choice}});
}

// {"type": "text" | "json_object" | "json_schema", "json_schema": {"name", "schema", ...}}.
absl::StatusOr<std::string> FromResponseFormat(const json::value& format) {
  if (!format.is_object()) return WrongType("response_format", "an object", format);
  const json::object& object = format.get_object();
  const json::value* type = object.if_contains("type");
  if (type == nullptr || !type->is_string()) {
    return absl::InvalidArgumentError("'response_format.type' is missing, or no string");
  }
  const std::string_view name = View(type->get_string());
  if (name == "text") return "";
  if (name == "json_object") return R"({"json_object":true})";
  if (name != "json_schema") {
    return absl::InvalidArgumentError(
        fmt::format("'response_format.type' is '{}', but must be text, json_object or json_schema",
                    name.substr(0, 64)));
  }
  const json::value* described = object.if_contains("json_schema");
  if (described == nullptr || !described->is_object()) {
    return absl::InvalidArgumentError("'response_format.json_schema' is missing, or no object");
  }
  const json::value* schema = described->get_object().if_contains("schema");
  if (schema == nullptr) {
    return absl::InvalidArgumentError("'response_format.json_schema.schema' is missing");
  }
  return SchemaConstraint(*schema, "response_format.json_schema.schema");
}

// vLLM's: an object with exactly one of these.
absl::StatusOr<std::string> FromStructuredOutputs(const json::value& outputs) {
  if (!outputs.is_object()) return WrongType("structured_outputs", "an object", outputs);
  std::string constraint;
  for (const json::key_value_pair& entry : outputs.get_object()) {
    const std::string_view key = View(entry.key());
    const json::value& value = entry.value();
    const std::string where = fmt::format("structured_outputs.{}", key.substr(0, 64));
    if (value.is_null()) continue;
    if (!constraint.empty()) {
      return absl::InvalidArgumentError("'structured_outputs' asks for more than one thing");
    }
    if (key == "json") {
      BATON_ASSIGN_OR_RETURN(constraint, SchemaConstraint(value, where));
    } else if (key == "regex") {
      BATON_ASSIGN_OR_RETURN(constraint, RegexOf(value, where));
    } else if (key == "choice") {
      BATON_ASSIGN_OR_RETURN(constraint, ChoiceOf(value, where));
    } else if (key == "json_object") {
      if (!value.is_bool()) return WrongType(where, "a boolean", value);
      if (value.get_bool()) constraint = R"({"json_object":true})";
    } else {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not supported; json, regex, choice and json_object are", where));
    }
  }
  return constraint;
}

using Reader = absl::StatusOr<std::string> (*)(const json::value&);

constexpr std::pair<const char*, Reader> kFields[] = {
    {"response_format", FromResponseFormat},
    {"structured_outputs", FromStructuredOutputs},
    {"guided_json", [](const json::value& v) { return SchemaConstraint(v, "guided_json"); }},
    {"guided_regex", [](const json::value& v) { return RegexOf(v, "guided_regex"); }},
    {"guided_choice", [](const json::value& v) { return ChoiceOf(v, "guided_choice"); }},
};

}  // namespace

absl::StatusOr<std::string> SchemaConstraint(const json::value& schema, std::string_view where) {
  if (schema.is_string()) return grammar::JsonSchemaConstraint(View(schema.get_string()));
  if (!schema.is_object() && !schema.is_bool()) return WrongType(where, "a JSON schema", schema);
  return grammar::JsonSchemaConstraint(json::serialize(schema));
}

absl::StatusOr<std::string> ReadConstraint(FieldReader& fields) {
  std::string constraint;
  const char* from = nullptr;
  for (const auto& [field, read] : kFields) {
    const json::value* value = fields.Find(field);
    if (value == nullptr) continue;
    BATON_ASSIGN_OR_RETURN(std::string one, read(*value));
    if (one.empty()) continue;
    if (from != nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' beside '{}': an answer has one constraint", field, from));
    }
    from = field;
    constraint = std::move(one);
  }
  if (from == nullptr) return constraint;
  fields.set_field(from);
  const auto compiled = grammar::CompileConstraint(constraint);
  if (compiled.ok()) return constraint;
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not possible: {}", from, std::string(compiled.status().message())));
}

}  // namespace baton::router
