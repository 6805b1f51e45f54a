#include "text/jinja/json_reader.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>

namespace baton::text::jinja {
namespace {

namespace json = boost::json;

Value ToValue(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return Value::NoneValue();
    case json::kind::bool_:
      return Value(value.get_bool());
    case json::kind::int64:
      return Value(value.get_int64());
    case json::kind::uint64:
      return Value(static_cast<double>(value.get_uint64()));
    case json::kind::double_:
      return Value(value.get_double());
    case json::kind::string:
      return Value(Text::User({value.get_string().data(), value.get_string().size()}));
    case json::kind::array: {
      List list;
      for (const json::value& item : value.get_array()) list.items.push_back(ToValue(item));
      return Value(std::move(list));
    }
    case json::kind::object:
      break;
  }
  Dict dict;
  for (const json::key_value_pair& entry : value.get_object()) {
    dict.Set(Value(Text::User({entry.key().data(), entry.key().size()})), ToValue(entry.value()));
  }
  return Value(std::move(dict));
}

}  // namespace

absl::StatusOr<Value> ReadJson(std::string_view text) {
  json::error_code error;
  const json::value value = json::parse({text.data(), text.size()}, error);
  if (error) return absl::InvalidArgumentError(fmt::format("not JSON: {}", error.message()));
  return ToValue(value);
}

}  // namespace baton::text::jinja
