#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "common/status_macros.h"
#include "text/jinja/expression_parser.h"
#include "text/jinja/lexer.h"

namespace baton::text::jinja {
namespace {

constexpr int kMaxTagNesting = 50;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() { return ParseBody({}); }

 private:
  using Node = std::unique_ptr<Statement>;
  using Names = std::initializer_list<std::string_view>;

  // Up to a tag named in `ends`, whose name is then the next token; up to the template's end when
  // there are none.
  absl::StatusOr<Body> ParseBody(Names ends);
  absl::StatusOr<Node> ParseTag();
  absl::StatusOr<Node> ParseTagNamed(const std::string& name, Node node);
  absl::Status ParseIf(Statement& node);
  absl::Status ParseFor(Statement& node);
  absl::Status ParseSet(Statement& node);
  absl::Status ParseMacro(Statement& node);
  absl::Status ParseWith(Statement& node);
  absl::StatusOr<std::vector<Target>> ParseTargets(bool with_attributes);
  absl::Status ParseParameters(Statement& node);
  // The body and the tag that ends it.
  absl::Status ParseBodyUntil(Body& body, std::string_view end);
  absl::Status TagEnd();

  ExpressionParser tokens_;
  int nesting_ = 0;
  int loops_ = 0;
};

absl::Status Parser::TagEnd() {
  if (tokens_.Peek().kind != TokenKind::kTagEnd) return tokens_.Unexpected("'%}'");
  tokens_.Take();
  return absl::OkStatus();
}

absl::StatusOr<Body> Parser::ParseBody(Names ends) {
  Body body;
  if (++nesting_ > kMaxTagNesting) {
    return ErrorAt(tokens_.Peek().position, fmt::format("tags are nested {} deep", nesting_));
  }
  while (true) {
    auto node = std::make_unique<Statement>();
    node->position = tokens_.Peek().position;
    const Token token = tokens_.Take();
    if (token.kind == TokenKind::kText) {
      node->kind = StatementKind::kText;
      node->text = Text::Template(token.value);
    } else if (token.kind == TokenKind::kOutputBegin) {
      node->kind = StatementKind::kOutput;
      BATON_ASSIGN_OR_RETURN(node->expr, tokens_.ExpressionOrTuple());
      if (tokens_.Peek().kind != TokenKind::kOutputEnd) return tokens_.Unexpected("'}}'");
      tokens_.Take();
    } else if (token.kind == TokenKind::kTagBegin) {
      const bool ends_here = std::any_of(
          ends.begin(), ends.end(), [this](std::string_view end) { return tokens_.IsName(end); });
      if (ends_here) break;
      BATON_ASSIGN_OR_RETURN(node, ParseTag());
    } else if (ends.size() == 0) {
      break;
    } else {
      return tokens_.Unexpected(fmt::format("'{{% {} %}}'", *(ends.end() - 1)));
    }
    body.push_back(std::move(node));
  }
  --nesting_;
  return body;
}

absl::Status Parser::ParseBodyUntil(Body& body, std::string_view end) {
  BATON_RETURN_IF_ERROR(TagEnd());
  BATON_ASSIGN_OR_RETURN(body, ParseBody({end}));
  tokens_.Take();
  return TagEnd();
}

absl::StatusOr<Parser::Node> Parser::ParseTag() {
  auto node = std::make_unique<Statement>();
  node->position = tokens_.Peek().position;
  BATON_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("a tag's name"));
  return ParseTagNamed(name, std::move(node));
}

absl::StatusOr<Parser::Node> Parser::ParseTagNamed(const std::string& name, Node node) {
  absl::Status status;
  if (name == "if") {
    status = ParseIf(*node);
  } else if (name == "for") {
    status = ParseFor(*node);
  } else if (name == "set") {
    status = ParseSet(*node);
  } else if (name == "macro") {
    status = ParseMacro(*node);
  } else if (name == "with") {
    status = ParseWith(*node);
  } else if (name == "call") {
    node->kind = StatementKind::kCallBlock;
    if (tokens_.AcceptOperator("(")) {
      BATON_RETURN_IF_ERROR(ParseParameters(*node));
      BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    }
    BATON_ASSIGN_OR_RETURN(node->expr, tokens_.Expression());
    status = ParseBodyUntil(node->body, "endcall");
  } else if (name == "generation") {
    node->kind = StatementKind::kScope;
    status = ParseBodyUntil(node->body, "endgeneration");
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) return ErrorAt(node->position, fmt::format("'{}' outside a loop", name));
    node->kind = name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    status = TagEnd();
  } else {
    status = ErrorAt(node->position, fmt::format("tag '{}' is not supported here", name));
  }
  BATON_RETURN_IF_ERROR(status);
  return node;
}

absl::Status Parser::ParseIf(Statement& node) {
  node.kind = StatementKind::kIf;
  while (true) {
    Branch branch;
    BATON_ASSIGN_OR_RETURN(branch.condition, tokens_.ExpressionOrTuple());
    BATON_RETURN_IF_ERROR(TagEnd());
    BATON_ASSIGN_OR_RETURN(branch.body, ParseBody({"elif", "else", "endif"}));
    node.branches.push_back(std::move(branch));
    if (!tokens_.AcceptName("elif")) break;
  }
  if (tokens_.AcceptName("else")) {
    Branch otherwise;
    BATON_RETURN_IF_ERROR(TagEnd());
    BATON_ASSIGN_OR_RETURN(otherwise.body, ParseBody({"endif"}));
    node.branches.push_back(std::move(otherwise));
  }
  tokens_.Take();
  return TagEnd();
}

absl::StatusOr<std::vector<Target>> Parser::ParseTargets(bool with_attributes) {
  std::vector<Target> targets;
  const bool bracket = tokens_.AcceptOperator("(");
  do {
    Target target;
    BATON_ASSIGN_OR_RETURN(target.name, tokens_.ExpectName("a variable"));
    if (with_attributes && tokens_.AcceptOperator(".")) {
      BATON_ASSIGN_OR_RETURN(target.attribute, tokens_.ExpectName("an attribute"));
    }
    targets.push_back(std::move(target));
  } while (tokens_.AcceptOperator(","));
  if (bracket) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return targets;
}

absl::Status Parser::ParseFor(Statement& node) {
  node.kind = StatementKind::kFor;
  BATON_ASSIGN_OR_RETURN(node.targets, ParseTargets(false));
  if (!tokens_.AcceptName("in")) return tokens_.Unexpected("'in'");
  BATON_ASSIGN_OR_RETURN(node.expr, tokens_.Expression(false));
  if (tokens_.AcceptName("if")) {
    BATON_ASSIGN_OR_RETURN(node.condition, tokens_.Expression());
  }
  if (tokens_.IsName("recursive")) return tokens_.Unexpected("a loop that is not recursive");
  BATON_RETURN_IF_ERROR(TagEnd());
  ++loops_;
  BATON_ASSIGN_OR_RETURN(node.body, ParseBody({"else", "endfor"}));
  --loops_;
  if (tokens_.AcceptName("else")) {
    BATON_RETURN_IF_ERROR(TagEnd());
    BATON_ASSIGN_OR_RETURN(node.else_body, ParseBody({"endfor"}));
  }
  tokens_.Take();
  return TagEnd();
}

absl::Status Parser::ParseSet(Statement& node) {
  BATON_ASSIGN_OR_RETURN(node.targets, ParseTargets(true));
  if (tokens_.AcceptOperator("=")) {
    node.kind = StatementKind::kSet;
    BATON_ASSIGN_OR_RETURN(node.expr, tokens_.ExpressionOrTuple());
    return TagEnd();
  }
  node.kind = StatementKind::kSetBlock;
  if (node.targets.size() != 1) return tokens_.Unexpected("'='");
  return ParseBodyUntil(node.body, "endset");
}

absl::Status Parser::ParseParameters(Statement& node) {
  do {
    if (tokens_.IsOperator(")") || tokens_.Peek().kind == TokenKind::kTagEnd) break;
    BATON_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("a parameter"));
    ExprPtr value;
    if (tokens_.AcceptOperator("=")) {
      BATON_ASSIGN_OR_RETURN(value, tokens_.Expression());
    }
    node.parameters.emplace_back(name, std::move(value));
  } while (tokens_.AcceptOperator(","));
  return absl::OkStatus();
}

absl::Status Parser::ParseMacro(Statement& node) {
  node.kind = StatementKind::kMacro;
  BATON_ASSIGN_OR_RETURN(node.name, tokens_.ExpectName("the macro's name"));
  BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  BATON_RETURN_IF_ERROR(ParseParameters(node));
  BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  const int outer_loops = std::exchange(loops_, 0);
  BATON_RETURN_IF_ERROR(ParseBodyUntil(node.body, "endmacro"));
  loops_ = outer_loops;
  return absl::OkStatus();
}

absl::Status Parser::ParseWith(Statement& node) {
  node.kind = StatementKind::kScope;
  BATON_RETURN_IF_ERROR(ParseParameters(node));
  for (const auto& [name, value] : node.parameters) {
    if (value == nullptr) return tokens_.Unexpected("'='");
  }
  return ParseBodyUntil(node.body, "endwith");
}

}  // namespace

absl::StatusOr<Body> Parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "the chat template has {} bytes, at most {} are allowed", source.size(), kMaxSourceBytes));
  }
  BATON_ASSIGN_OR_RETURN(std::vector<Token> tokens, Lex(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace baton::text::jinja
