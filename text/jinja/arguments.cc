#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/builtins.h"

namespace baton::text::jinja {

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  const auto found = std::find_if(named.begin(), named.end(),
                                  [name](const auto& entry) { return entry.first == name; });
  return found == named.end() ? nullptr : &found->second;
}

absl::StatusOr<int64_t> Arguments::Integer(size_t index, std::string_view name,
                                           int64_t fallback) const {
  const Value* value = Get(index, name);
  if (value == nullptr) return fallback;
  if (value->IsInteger()) return value->AsInteger();
  return absl::InvalidArgumentError(
      fmt::format("argument '{}' is a {}, not an int", name, value->TypeName()));
}

absl::StatusOr<Text> Arguments::String(size_t index, std::string_view name,
                                       std::string_view fallback) const {
  const Value* value = Get(index, name);
  if (value == nullptr) return Text::Template(fallback);
  if (value->text() != nullptr) return *value->text();
  return absl::InvalidArgumentError(
      fmt::format("argument '{}' is a {}, not a str", name, value->TypeName()));
}

bool Arguments::Flag(size_t index, std::string_view name, bool fallback) const {
  const Value* value = Get(index, name);
  return value == nullptr ? fallback : value->Truthy();
}

Arguments Arguments::Rest(size_t count) const {
  Arguments rest;
  const size_t skipped = std::min(count, positional.size());
  rest.positional.assign(positional.begin() + static_cast<std::ptrdiff_t>(skipped),
                         positional.end());
  rest.named = named;
  return rest;
}

}  // namespace baton::text::jinja
