#pragma once

// Typed reading of a JSON object's fields with errors that name the field, the wanted and the given
// type. null counts as not given, as in OpenAI's API.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ids.h"

namespace baton::router {

// "an integer", "a string", "null", ...
std::string_view JsonKindName(const boost::json::value& value);
// InvalidArgument("'<where>' must be <wanted>, not <given>").
absl::Status WrongType(std::string_view where, std::string_view wanted,
                       const boost::json::value& given);

absl::StatusOr<int32_t> JsonInt(const boost::json::value& value, std::string_view where);
// Any number; beyond float's range an infinity (which range checks refuse).
absl::StatusOr<float> JsonFloat(const boost::json::value& value, std::string_view where);
absl::StatusOr<std::string> JsonText(const boost::json::value& value, std::string_view where);
absl::StatusOr<std::vector<TokenId>> JsonTokens(const boost::json::array& array,
                                                std::string_view where);

// The body of a request: one JSON object, strict JSON, valid UTF-8, nested at most 32 deep.
// InvalidArgument says what is wrong and at which byte.
absl::StatusOr<boost::json::value> ParseJsonObject(std::string_view body);

// One object's fields. On an error `field()` is the name of the field that was read last. The
// object outlives the reader.
class FieldReader {
 public:
  explicit FieldReader(const boost::json::object& object) : object_(object) {}

  // Null when the field is absent or null. Valid as long as the object.
  const boost::json::value* Find(std::string_view name);

  // Each leaves `out` as it is when the field is not given.
  absl::Status Read(std::string_view name, bool* out);
  absl::Status Read(std::string_view name, int32_t* out);
  absl::Status Read(std::string_view name, float* out);
  absl::Status Read(std::string_view name, std::string* out);

  // InvalidArgument for a field that is not `known`, naming the nearest that is.
  absl::Status CheckKnown(const std::vector<std::string>& known);

  const std::string& field() const { return field_; }
  void set_field(std::string_view name) { field_ = name; }

 private:
  const boost::json::object& object_;
  std::string field_;
};

}  // namespace baton::router
