#pragma once

// Python's string operations on marked text. Positions and lengths are in characters; a byte that
// belongs to no valid UTF-8 character counts as one. Changes of case know ASCII letters only.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace baton::text::jinja {

// Where each character begins, and the end.
std::vector<size_t> CharStarts(std::string_view text);
int64_t CharCount(std::string_view text);

// Linear, whatever the texts; npos when there is none.
size_t FindBytes(std::string_view text, std::string_view what, size_t from = 0);

// Without the characters of `chars` (default: Python's white space) at the chosen ends.
Text Strip(const Text& text, std::optional<std::string_view> chars, bool left, bool right);

// At most `limit` times when limit >= 0.
absl::StatusOr<Text> Replace(const Text& text, std::string_view old, const Text& replacement,
                             int64_t limit, Budget& budget);

// str.split and str.rsplit; without a separator runs of white space separate.
absl::StatusOr<std::vector<Text>> Split(const Text& text, std::optional<std::string_view> separator,
                                        int64_t limit, bool from_right, Budget& budget);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

// Before ToText or Repr of `value`.
absl::Status SpendOnPrinting(const Value& value, Budget& budget);

absl::StatusOr<Text> Join(const std::vector<Value>& items, const Text& separator, Budget& budget);

Text Upper(const Text& text);
Text Lower(const Text& text);
Text Capitalize(const Text& text);
Text Title(const Text& text);

// Puts `indent` spaces in front of each line but the first (unless `first`); blank lines stay as
// they are unless `blank`.
absl::StatusOr<Text> Indent(const Text& text, int64_t indent, bool first, bool blank,
                            Budget& budget);

}  // namespace baton::text::jinja
