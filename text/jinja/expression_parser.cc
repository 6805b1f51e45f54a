#include "text/jinja/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"

namespace baton::text::jinja {
namespace {

constexpr int kMaxDepth = 100;   // of brackets inside each other
constexpr int kMaxHeight = 200;  // of an expression tree

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kOutputBegin:
      return "'{{'";
    case TokenKind::kOutputEnd:
      return "'}}'";
    case TokenKind::kTagBegin:
      return "'{%'";
    case TokenKind::kTagEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{}'", token.value);
  }
}

}  // namespace

bool ExpressionParser::IsOperator(std::string_view op) const {
  return Peek().kind == TokenKind::kOperator && Peek().value == op;
}

bool ExpressionParser::IsName(std::string_view name) const {
  return Peek().kind == TokenKind::kName && Peek().value == name;
}

bool ExpressionParser::AcceptOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  ++at_;
  return true;
}

bool ExpressionParser::AcceptName(std::string_view name) {
  if (!IsName(name)) return false;
  ++at_;
  return true;
}

absl::Status ExpressionParser::ExpectOperator(std::string_view op) {
  return AcceptOperator(op) ? absl::OkStatus() : Unexpected(fmt::format("'{}'", op));
}

absl::StatusOr<std::string> ExpressionParser::ExpectName(std::string_view what) {
  if (Peek().kind != TokenKind::kName) return Unexpected(what);
  return Take().value;
}

absl::Status ExpressionParser::Unexpected(std::string_view wanted) const {
  return ErrorAt(Peek().position, fmt::format("expected {}, not {}", wanted, Describe(Peek())));
}

ExpressionParser::Node ExpressionParser::New(ExprKind kind) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->position = Peek().position;
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Finish(Node node) const {
  for (const ExprPtr& child : node->children) {
    if (child != nullptr) node->height = std::max(node->height, child->height + 1);
  }
  for (const auto& [name, child] : node->keywords) {
    node->height = std::max(node->height, child->height + 1);
  }
  if (node->height > kMaxHeight) {
    return ErrorAt(node->position, fmt::format("an expression is {} levels high", node->height));
  }
  return ExprPtr(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Wrap(ExprKind kind, ExprPtr child) const {
  Node node = New(kind);
  node->position = child->position;
  node->children.push_back(std::move(child));
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Expression(bool with_condition) {
  if (depth_ >= kMaxDepth) {
    return ErrorAt(Peek().position, fmt::format("expressions are nested {} deep", depth_));
  }
  ++depth_;
  auto result = with_condition ? Conditional() : Or();
  --depth_;
  return result;
}

absl::StatusOr<ExprPtr> ExpressionParser::ExpressionOrTuple() {
  BATON_ASSIGN_OR_RETURN(ExprPtr first, Expression());
  if (!IsOperator(",")) return first;
  Node tuple = New(ExprKind::kTuple);
  tuple->children.push_back(std::move(first));
  while (AcceptOperator(",")) {
    if (Peek().kind == TokenKind::kTagEnd || Peek().kind == TokenKind::kOutputEnd) break;
    BATON_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    tuple->children.push_back(std::move(item));
  }
  return Finish(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::Conditional() {
  BATON_ASSIGN_OR_RETURN(ExprPtr value, Or());
  while (AcceptName("if")) {
    Node node = New(ExprKind::kConditional);
    BATON_ASSIGN_OR_RETURN(ExprPtr condition, Or());
    ExprPtr otherwise;
    if (AcceptName("else")) {
      BATON_ASSIGN_OR_RETURN(otherwise, Expression());
    }
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(condition));
    node->children.push_back(std::move(otherwise));
    BATON_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  return value;
}

absl::StatusOr<ExprPtr> ExpressionParser::Or() {
  BATON_ASSIGN_OR_RETURN(ExprPtr left, And());
  while (AcceptName("or")) {
    Node node = New(ExprKind::kOr);
    BATON_ASSIGN_OR_RETURN(ExprPtr right, And());
    node->children.push_back(std::move(left));
    node->children.push_back(std::move(right));
    BATON_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::And() {
  BATON_ASSIGN_OR_RETURN(ExprPtr left, Not());
  while (AcceptName("and")) {
    Node node = New(ExprKind::kAnd);
    BATON_ASSIGN_OR_RETURN(ExprPtr right, Not());
    node->children.push_back(std::move(left));
    node->children.push_back(std::move(right));
    BATON_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Not() {
  int count = 0;
  while (AcceptName("not")) {
    if (++count > kMaxDepth) return Unexpected("fewer 'not'");
  }
  BATON_ASSIGN_OR_RETURN(ExprPtr value, Compare());
  for (; count > 0; --count) {
    BATON_ASSIGN_OR_RETURN(value, Wrap(ExprKind::kNot, std::move(value)));
  }
  return value;
}

absl::StatusOr<ExprPtr> ExpressionParser::Compare() {
  BATON_ASSIGN_OR_RETURN(ExprPtr first, Sum());
  Node node = New(ExprKind::kCompare);
  node->children.push_back(std::move(first));
  while (true) {
    constexpr std::string_view kOperators[] = {"==", "!=", "<=", ">=", "<", ">"};
    const auto found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                    [this](std::string_view op) { return IsOperator(op); });
    if (found != std::end(kOperators)) {
      ++at_;
      node->operators.emplace_back(*found);
    } else if (AcceptName("in")) {
      node->operators.emplace_back("in");
    } else if (IsName("not") && tokens_[at_ + 1].kind == TokenKind::kName &&
               tokens_[at_ + 1].value == "in") {
      at_ += 2;
      node->operators.emplace_back("not in");
    } else {
      break;
    }
    BATON_ASSIGN_OR_RETURN(ExprPtr next, Sum());
    node->children.push_back(std::move(next));
  }
  if (node->operators.empty()) return std::move(node->children[0]);
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::LeftAssociative(
    Parse operand, std::initializer_list<std::string_view> operators, ExprKind kind) {
  BATON_ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  while (true) {
    const auto found = std::find_if(operators.begin(), operators.end(),
                                    [this](std::string_view op) { return IsOperator(op); });
    if (found == operators.end()) return left;
    Node node = New(kind);
    node->name = Take().value;
    BATON_ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    node->children.push_back(std::move(left));
    node->children.push_back(std::move(right));
    BATON_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Sum() {
  return LeftAssociative(&ExpressionParser::Concat, {"+", "-"}, ExprKind::kArithmetic);
}

absl::StatusOr<ExprPtr> ExpressionParser::Concat() {
  BATON_ASSIGN_OR_RETURN(ExprPtr first, Product());
  if (!IsOperator("~")) return first;
  Node node = New(ExprKind::kConcat);
  node->children.push_back(std::move(first));
  while (AcceptOperator("~")) {
    BATON_ASSIGN_OR_RETURN(ExprPtr next, Product());
    node->children.push_back(std::move(next));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Product() {
  return LeftAssociative(&ExpressionParser::Power, {"*", "/", "//", "%"}, ExprKind::kArithmetic);
}

absl::StatusOr<ExprPtr> ExpressionParser::Power() {
  return LeftAssociative(&ExpressionParser::Unary, {"**"}, ExprKind::kArithmetic);
}

absl::StatusOr<ExprPtr> ExpressionParser::SignedValue(bool with_filters) {
  if (depth_ >= kMaxDepth) return Unexpected("fewer signs");
  ExprPtr value;
  if (IsOperator("-") || IsOperator("+")) {
    const ExprKind kind = IsOperator("-") ? ExprKind::kNegate : ExprKind::kPlus;
    ++at_;
    ++depth_;
    BATON_ASSIGN_OR_RETURN(value, SignedValue(false));
    --depth_;
    BATON_ASSIGN_OR_RETURN(value, Wrap(kind, std::move(value)));
  } else {
    BATON_ASSIGN_OR_RETURN(value, Primary());
    BATON_ASSIGN_OR_RETURN(value, Postfix(std::move(value)));
  }
  if (!with_filters) return value;
  return Filters(std::move(value));
}

absl::StatusOr<ExprPtr> ExpressionParser::Postfix(ExprPtr value) {
  while (true) {
    if (AcceptOperator(".")) {
      Node node =
          New(Peek().kind == TokenKind::kInteger ? ExprKind::kSubscript : ExprKind::kAttribute);
      node->children.push_back(std::move(value));
      if (node->kind == ExprKind::kSubscript) {
        BATON_ASSIGN_OR_RETURN(ExprPtr index, Number());
        node->children.push_back(std::move(index));
      } else {
        BATON_ASSIGN_OR_RETURN(node->name, ExpectName("an attribute"));
      }
      BATON_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
    } else if (IsOperator("[")) {
      BATON_ASSIGN_OR_RETURN(value, Subscript(std::move(value)));
    } else if (IsOperator("(")) {
      Node node = New(ExprKind::kCall);
      node->children.push_back(std::move(value));
      BATON_RETURN_IF_ERROR(Arguments(*node));
      BATON_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Subscript(ExprPtr value) {
  Node node = New(ExprKind::kSubscript);
  ++at_;
  node->children.push_back(std::move(value));
  ExprPtr part;
  if (!IsOperator(":")) {
    BATON_ASSIGN_OR_RETURN(part, Expression());
  }
  node->children.push_back(std::move(part));
  while (node->children.size() < 4 && AcceptOperator(":")) {
    node->kind = ExprKind::kSlice;
    part = nullptr;
    if (!IsOperator(":") && !IsOperator("]")) {
      BATON_ASSIGN_OR_RETURN(part, Expression());
    }
    node->children.push_back(std::move(part));
  }
  BATON_RETURN_IF_ERROR(ExpectOperator("]"));
  if (node->kind == ExprKind::kSlice) node->children.resize(4);
  return Finish(std::move(node));
}

absl::Status ExpressionParser::Arguments(Expr& call) {
  BATON_RETURN_IF_ERROR(ExpectOperator("("));
  while (!IsOperator(")")) {
    const bool is_keyword = Peek().kind == TokenKind::kName &&
                            tokens_[at_ + 1].kind == TokenKind::kOperator &&
                            tokens_[at_ + 1].value == "=";
    if (is_keyword) {
      const std::string name = Take().value;
      ++at_;
      BATON_ASSIGN_OR_RETURN(ExprPtr value, Expression());
      call.keywords.emplace_back(name, std::move(value));
    } else if (!call.keywords.empty()) {
      return Unexpected("a keyword argument");
    } else {
      const bool is_splat = AcceptOperator("*");
      BATON_ASSIGN_OR_RETURN(ExprPtr value, Expression());
      if (is_splat) {
        BATON_ASSIGN_OR_RETURN(value, Wrap(ExprKind::kSplat, std::move(value)));
      }
      call.children.push_back(std::move(value));
    }
    if (!AcceptOperator(",")) break;
  }
  return ExpectOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::Filters(ExprPtr value) {
  while (true) {
    if (AcceptOperator("|")) {
      BATON_ASSIGN_OR_RETURN(value, Filter(std::move(value)));
    } else if (AcceptName("is")) {
      BATON_ASSIGN_OR_RETURN(value, Test(std::move(value)));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Filter(ExprPtr value) {
  Node node = New(ExprKind::kFilter);
  BATON_ASSIGN_OR_RETURN(node->name, ExpectName("a filter"));
  node->children.push_back(std::move(value));
  if (IsOperator("(")) BATON_RETURN_IF_ERROR(Arguments(*node));
  return Finish(std::move(node));
}

// Whether "is name" goes on with an argument without brackets, as in "is divisibleby 3".
bool ExpressionParser::StartsTestArgument() const {
  const Token& token = Peek();
  if (token.kind == TokenKind::kName) {
    constexpr std::string_view kNot[] = {"else", "or", "and", "is", "if", "in", "not"};
    return std::find(std::begin(kNot), std::end(kNot), token.value) == std::end(kNot);
  }
  return token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
         token.kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{");
}

absl::StatusOr<ExprPtr> ExpressionParser::Test(ExprPtr value) {
  Node node = New(ExprKind::kTest);
  const bool negated = AcceptName("not");
  BATON_ASSIGN_OR_RETURN(node->name, ExpectName("a test"));
  node->children.push_back(std::move(value));
  if (IsOperator("(")) {
    BATON_RETURN_IF_ERROR(Arguments(*node));
    if (!node->keywords.empty()) return Unexpected("a test without keyword arguments");
  } else if (StartsTestArgument()) {
    BATON_ASSIGN_OR_RETURN(ExprPtr argument, Primary());
    BATON_ASSIGN_OR_RETURN(argument, Postfix(std::move(argument)));
    node->children.push_back(std::move(argument));
  }
  BATON_ASSIGN_OR_RETURN(ExprPtr test, Finish(std::move(node)));
  if (!negated) return test;
  return Wrap(ExprKind::kNot, std::move(test));
}

}  // namespace baton::text::jinja
