#pragma once

// The expression half of the parser.

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace baton::text::jinja {

// Walks the tokens of one template. The grammar and its precedences are Jinja's.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek() const { return tokens_[at_]; }
  Token Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool IsOperator(std::string_view op) const;
  bool IsName(std::string_view name) const;
  bool AcceptOperator(std::string_view op);
  bool AcceptName(std::string_view name);
  absl::Status ExpectOperator(std::string_view op);
  absl::StatusOr<std::string> ExpectName(std::string_view what);
  absl::Status Unexpected(std::string_view wanted) const;

  // `with_condition`: whether "a if b else c" may be used here.
  absl::StatusOr<ExprPtr> Expression(bool with_condition = true);
  // An expression or, without brackets, a tuple of them.
  absl::StatusOr<ExprPtr> ExpressionOrTuple();

 private:
  using Node = std::unique_ptr<Expr>;
  using Parse = absl::StatusOr<ExprPtr> (ExpressionParser::*)();

  absl::StatusOr<ExprPtr> Conditional();
  absl::StatusOr<ExprPtr> Or();
  absl::StatusOr<ExprPtr> And();
  absl::StatusOr<ExprPtr> Not();
  absl::StatusOr<ExprPtr> Compare();
  absl::StatusOr<ExprPtr> Sum();
  absl::StatusOr<ExprPtr> Concat();
  absl::StatusOr<ExprPtr> Product();
  absl::StatusOr<ExprPtr> Power();
  absl::StatusOr<ExprPtr> Unary() { return SignedValue(true); }
  absl::StatusOr<ExprPtr> SignedValue(bool with_filters);
  absl::StatusOr<ExprPtr> Primary();
  absl::StatusOr<ExprPtr> Number();
  absl::StatusOr<ExprPtr> Parenthesized();
  absl::StatusOr<ExprPtr> ListLiteral();
  absl::StatusOr<ExprPtr> DictLiteral();
  absl::StatusOr<ExprPtr> Postfix(ExprPtr value);
  absl::StatusOr<ExprPtr> Subscript(ExprPtr value);
  absl::StatusOr<ExprPtr> Filters(ExprPtr value);
  absl::StatusOr<ExprPtr> Filter(ExprPtr value);
  absl::StatusOr<ExprPtr> Test(ExprPtr value);
  absl::Status Arguments(Expr& call);
  bool StartsTestArgument() const;

  absl::StatusOr<ExprPtr> LeftAssociative(Parse operand,
                                          std::initializer_list<std::string_view> operators,
                                          ExprKind kind);
  Node New(ExprKind kind) const;
  absl::StatusOr<ExprPtr> Finish(Node node) const;
  absl::StatusOr<ExprPtr> Wrap(ExprKind kind, ExprPtr child) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace baton::text::jinja
