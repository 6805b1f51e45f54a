#pragma once

// Cuts a template into text and the tokens of its tags, with Jinja's whitespace rules as chat
// templates are rendered: trim_blocks and lstrip_blocks on, one trailing newline dropped.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/jinja/ast.h"

namespace baton::text::jinja {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kTagBegin,
  kTagEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  Position position;
  std::string value;  // text, name, unescaped string, digits without '_', or operator
};

// InvalidArgument with "line L, column C: what". The last token is kEnd.
absl::StatusOr<std::vector<Token>> Lex(std::string_view source);

absl::Status ErrorAt(Position position, std::string_view what);

}  // namespace baton::text::jinja
