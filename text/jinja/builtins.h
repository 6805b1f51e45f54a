#pragma once

// Filters, tests and methods: the functions a template may call on a value. None touches anything
// but its arguments and the budget.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace baton::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or called `name`, null when it is not given.
  const Value* Get(size_t index, std::string_view name) const;
  // The same with a type: `fallback` when it is not given, InvalidArgument for another type.
  absl::StatusOr<int64_t> Integer(size_t index, std::string_view name, int64_t fallback) const;
  absl::StatusOr<Text> String(size_t index, std::string_view name, std::string_view fallback) const;
  bool Flag(size_t index, std::string_view name, bool fallback) const;
  // All but the first `count` positional ones.
  Arguments Rest(size_t count) const;
};

// value | name(args). InvalidArgument when there is no such filter.
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& value, const Arguments& args,
                                  Budget& budget);

// value is name(args).
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const Arguments& args,
                               Budget& budget);

// object.name(args) for strings, lists, dicts and `loop`.
absl::StatusOr<Value> CallMethod(const Value& object, std::string_view name, const Arguments& args,
                                 Budget& budget);

}  // namespace baton::text::jinja
