#pragma once

// What operators, subscripts and iteration do with values: Python's rules.

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace baton::text::jinja {

// InvalidArgument ("'x' is undefined") for every use of an undefined value that
// Jinja refuses.
absl::Status CheckDefined(const Value& value);

// `op` is one of + - * / // % **. Integers that leave 64 bits are refused.
absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& a, const Value& b,
                                 Budget& budget);
absl::StatusOr<Value> Negate(const Value& value);

// `op` is one of == != < <= > >= in, "not in".
absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget& budget);

// The items of a list, the keys of a dict, the characters of a string, nothing for undefined.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget& budget);
absl::StatusOr<int64_t> Length(const Value& value, Budget& budget);

// object.name and object[key]: undefined when there is no such thing.
absl::StatusOr<Value> GetAttribute(const Value& object, std::string_view name);
absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Budget& budget);
// object[start:stop:step]; an absent or none bound is open.
absl::StatusOr<Value> Slice(const Value& object, const Value& start, const Value& stop,
                            const Value& step, Budget& budget);

// A list or dict that is not nested too deeply to be walked by recursion.
absl::StatusOr<Value> MakeList(std::vector<Value> items, Budget& budget, bool is_tuple = false);
absl::StatusOr<Value> MakeDict(Dict dict, Budget& budget);

}  // namespace baton::text::jinja
