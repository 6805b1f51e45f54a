// The literals of expressions.

#include <fmt/format.h>

#include <charconv>

#include "common/status_macros.h"
#include "text/jinja/expression_parser.h"

namespace baton::text::jinja {

absl::StatusOr<ExprPtr> ExpressionParser::Number() {
  Node node = New(ExprKind::kLiteral);
  const Token token = Take();
  const char* const begin = token.value.data();
  const char* const end = begin + token.value.size();
  std::from_chars_result read;
  if (token.kind == TokenKind::kInteger) {
    int64_t value = 0;
    read = std::from_chars(begin, end, value);
    node->literal = Value(value);
  } else {
    double value = 0;
    read = std::from_chars(begin, end, value);
    node->literal = Value(value);
  }
  if (read.ec != std::errc() || read.ptr != end) {
    return ErrorAt(token.position, fmt::format("'{}' is out of range", token.value));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Primary() {
  const TokenKind kind = Peek().kind;
  if (kind == TokenKind::kInteger || kind == TokenKind::kFloat) return Number();
  if (kind == TokenKind::kString) {
    Node node = New(ExprKind::kLiteral);
    std::string text;
    while (Peek().kind == TokenKind::kString) text += Take().value;
    node->literal = Value(Text::Template(text));
    return Finish(std::move(node));
  }
  if (IsOperator("(")) return Parenthesized();
  if (IsOperator("[")) return ListLiteral();
  if (IsOperator("{")) return DictLiteral();
  if (kind != TokenKind::kName) return Unexpected("an expression");

  Node node = New(ExprKind::kLiteral);
  const std::string name = Take().value;
  if (name == "true" || name == "True") {
    node->literal = Value(true);
  } else if (name == "false" || name == "False") {
    node->literal = Value(false);
  } else if (name == "none" || name == "None") {
    node->literal = Value::NoneValue();
  } else {
    node->kind = ExprKind::kVariable;
    node->name = name;
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Parenthesized() {
  Node tuple = New(ExprKind::kTuple);
  ++at_;
  bool is_tuple = IsOperator(")");
  while (!IsOperator(")")) {
    BATON_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    tuple->children.push_back(std::move(item));
    if (!AcceptOperator(",")) break;
    is_tuple = true;
  }
  BATON_RETURN_IF_ERROR(ExpectOperator(")"));
  if (!is_tuple) return std::move(tuple->children[0]);
  return Finish(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::ListLiteral() {
  Node list = New(ExprKind::kList);
  ++at_;
  while (!IsOperator("]")) {
    BATON_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    list->children.push_back(std::move(item));
    if (!AcceptOperator(",")) break;
  }
  BATON_RETURN_IF_ERROR(ExpectOperator("]"));
  return Finish(std::move(list));
}

absl::StatusOr<ExprPtr> ExpressionParser::DictLiteral() {
  Node dict = New(ExprKind::kDict);
  ++at_;
  while (!IsOperator("}")) {
    BATON_ASSIGN_OR_RETURN(ExprPtr key, Expression());
    BATON_RETURN_IF_ERROR(ExpectOperator(":"));
    BATON_ASSIGN_OR_RETURN(ExprPtr value, Expression());
    dict->children.push_back(std::move(key));
    dict->children.push_back(std::move(value));
    if (!AcceptOperator(",")) break;
  }
  BATON_RETURN_IF_ERROR(ExpectOperator("}"));
  return Finish(std::move(dict));
}

}  // namespace baton::text::jinja
