#include "router/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::router {
namespace json = boost::json;

std::string_view JsonKindName(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
      return "an integer";
    case json::kind::double_:
      return "a number with a fraction";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "unknown";
}

absl::Status WrongType(std::string_view where, std::string_view wanted, const json::value& given) {
  return absl::InvalidArgumentError(
      fmt::format("'{}' must be {}, not {}", where, wanted, JsonKindName(given)));
}

absl::StatusOr<int32_t> JsonInt(const json::value& value, std::string_view where) {
  if (value.is_uint64()) {  // only integers above int64's range are parsed as uint64
    return absl::InvalidArgumentError(fmt::format("'{}' is {}, but must be in [{}, {}]", where,
                                                  value.get_uint64(), INT32_MIN, INT32_MAX));
  }
  if (!value.is_int64()) return WrongType(where, "an integer", value);
  const int64_t number = value.get_int64();
  if (number < INT32_MIN || number > INT32_MAX) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is {}, but must be in [{}, {}]", where, number, INT32_MIN, INT32_MAX));
  }
  return static_cast<int32_t>(number);
}

absl::StatusOr<float> JsonFloat(const json::value& value, std::string_view where) {
  if (!value.is_number()) return WrongType(where, "a number", value);
  const double number = value.to_number<double>();
  constexpr double kLargest = std::numeric_limits<float>::max();
  return std::abs(number) > kLargest ? std::numeric_limits<float>::infinity()
                                     : static_cast<float>(number);
}

absl::StatusOr<std::string> JsonText(const json::value& value, std::string_view where) {
  if (!value.is_string()) return WrongType(where, "a string", value);
  return std::string(value.get_string().data(), value.get_string().size());
}

absl::StatusOr<std::vector<TokenId>> JsonTokens(const json::array& array, std::string_view where) {
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (const json::value& element : array) {
    if (!element.is_int64()) {
      return WrongType(fmt::format("{}[{}]", where, tokens.size()), "a token id", element);
    }
    const int64_t token = element.get_int64();
    if (token < 0 || token > INT32_MAX) {
      return absl::InvalidArgumentError(fmt::format("'{}[{}]' is {}, but token ids are in [0, {}]",
                                                    where, tokens.size(), token, INT32_MAX));
    }
    tokens.push_back(static_cast<TokenId>(token));
  }
  return tokens;
}

absl::StatusOr<json::value> ParseJsonObject(std::string_view body) {
  const auto refuse = [](std::string_view why, size_t at) {
    return absl::InvalidArgumentError(
        fmt::format("the body is not valid JSON: {} at byte {}", why, at));
  };
  constexpr std::string_view kSpace = " \t\r\n";
  if (body.find_first_not_of(kSpace) == std::string_view::npos) {
    return absl::InvalidArgumentError("the body is empty; it must be a JSON object");
  }
  json::parse_options options;
  options.max_depth = 32;
  json::parser parser({}, options);
  json::error_code error;
  const size_t used = parser.write_some(body.data(), body.size(), error);
  if (error) return refuse(error.message(), used);
  const size_t extra = body.find_first_not_of(kSpace, used);
  if (extra != std::string_view::npos) return refuse("something follows the object", extra);
  json::value value = parser.release();
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        fmt::format("the body must be a JSON object, not {}", JsonKindName(value)));
  }
  return value;
}

absl::Status FieldReader::CheckKnown(const std::vector<std::string>& known) {
  for (const json::key_value_pair& entry : object_) {
    const std::string name(entry.key().data(), entry.key().size());
    if (std::ranges::find(known, name) != known.end()) continue;
    field_ = name;
    return absl::InvalidArgumentError(
        fmt::format("unknown field '{}'{}", name.substr(0, 64), DidYouMean(name, known)));
  }
  return absl::OkStatus();
}

const json::value* FieldReader::Find(std::string_view name) {
  field_ = name;
  const json::value* value = object_.if_contains({name.data(), name.size()});
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::Status FieldReader::Read(std::string_view name, bool* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_bool()) return WrongType(name, "a boolean", *value);
  *out = value->get_bool();
  return absl::OkStatus();
}

absl::Status FieldReader::Read(std::string_view name, int32_t* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(*out, JsonInt(*value, name));
  return absl::OkStatus();
}

absl::Status FieldReader::Read(std::string_view name, float* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(*out, JsonFloat(*value, name));
  return absl::OkStatus();
}

absl::Status FieldReader::Read(std::string_view name, std::string* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(*out, JsonText(*value, name));
  return absl::OkStatus();
}

}  // namespace baton::router
