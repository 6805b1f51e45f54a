#pragma once

// The parsed template.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace baton::text::jinja {

struct Position {
  int line = 1;
  int column = 1;
};

enum class ExprKind {
  kLiteral,    // literal
  kVariable,   // name
  kAttribute,  // children[0].name
  kSubscript,  // children[0][children[1]]
  kSlice,      // children[0][children[1]:children[2]:children[3]], any of 1..3 may be null
  kCall,       // children[0](children[1..], keywords)
  kFilter,     // children[0] | name(children[1..], keywords)
  kTest,       // children[0] is name(children[1..])
  kNot,        // not children[0]
  kAnd,
  kOr,           // children[0], children[1]
  kNegate,       // -children[0]
  kPlus,         // +children[0]
  kArithmetic,   // children[0] name children[1], name one of + - * / // % **
  kConcat,       // children[0] ~ children[1] ~ ...
  kCompare,      // children[0] operators[0] children[1] operators[1] children[2] ...
  kConditional,  // children[0] if children[1] else children[2], the last may be null
  kList,
  kTuple,  // children
  kDict,   // keys and values in turn
  kSplat,  // *children[0], among the arguments of a call
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  ExprKind kind;
  Position position;
  int height = 1;  // of the tree below; bounded by the parser
  std::string name;
  Value literal;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> operators;
};

enum class StatementKind {
  kText,      // text
  kOutput,    // expr
  kIf,        // branches; a branch without condition is the else
  kFor,       // targets, expr, condition (may be null), body, else_body
  kSet,       // targets = expr
  kSetBlock,  // targets[0] = the output of body
  kMacro,     // name, parameters, body
  kScope,     // body with variables of its own: {% generation %}, {% with %} (parameters)
  kBreak,
  kContinue,
  kCallBlock,  // parsed so that the rest of a template can be used; refused when it is reached
};

// What {% set %} and {% for %} assign to: a name, or an attribute of a namespace.
struct Target {
  std::string name;
  std::string attribute;  // "" for a plain name
};

using Body = std::vector<std::unique_ptr<const Statement>>;

struct Branch {
  ExprPtr condition;  // null: else
  Body body;
};

struct Statement {
  StatementKind kind;
  Position position;
  Text text;
  ExprPtr expr;
  ExprPtr condition;
  std::string name;
  std::vector<Target> targets;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with defaults, null where none
  std::vector<Branch> branches;
  Body body;
  Body else_body;
};

}  // namespace baton::text::jinja
