#pragma once

// Regular expressions to grammars.

#include <functional>
#include <string_view>

#include "absl/status/statusor.h"
#include "grammar/expression.h"

namespace baton::grammar {

struct RegexOptions {
  // Whether the whole text must match, as with guided_regex; or a part of it, as in JSON schemas,
  // unless the pattern says otherwise with ^ and $.
  bool whole = true;
  // What stands for one of these characters in the text; null: they themselves.
  std::function<ExpressionId(Grammar*, const CharacterSet&)> character = nullptr;
};

// Literals, `.` (all but a line's end), classes [a-z], [^...], \d \w \s \D \W \S (of ASCII),
// escapes \n \t \r \f \v \0 \xHH \uHHHH and those of punctuation, groups (...), (?:...),
// (?P<name>...),
// (?<name>...), alternatives, * + ? {n} {n,} {n,m} and their lazy forms, which match the same
// texts, and ^ and $ around the whole. InvalidArgument says what is not supported and at which
// character. `pattern` is UTF-8.
absl::StatusOr<ExpressionId> ParseRegex(std::string_view pattern, const RegexOptions& options,
                                        Grammar* grammar);

}  // namespace baton::grammar
