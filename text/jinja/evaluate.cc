// The expression half of the interpreter.

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/lexer.h"
#include "text/jinja/operators.h"
#include "text/jinja/text_ops.h"

namespace baton::text::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // as Jinja's own sandbox
constexpr uint64_t kStepsPerNamespace = 20;

// Errors get the position of the innermost expression they come from.
absl::Status Located(const absl::Status& status, Position position) {
  const std::string message(status.message());
  if (status.code() != absl::StatusCode::kInvalidArgument || message.starts_with("chat template")) {
    return status;
  }
  return ErrorAt(position, message);
}

}  // namespace

Interpreter::Result Interpreter::Evaluate(const Expr& expr) {
  const DepthGuard guard(&depth_);
  BATON_RETURN_IF_ERROR(CheckDepth());
  BATON_RETURN_IF_ERROR(budget_.Spend(1));
  Result result = EvaluateNode(expr);
  if (result.ok()) return result;
  return Located(result.status(), expr.position);
}

Interpreter::Result Interpreter::EvaluateOptional(const ExprPtr& expr) {
  if (expr == nullptr) return Value();
  return Evaluate(*expr);
}

Interpreter::Result Interpreter::EvaluateNode(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.literal;
    case ExprKind::kVariable:
      return Look(expr.name);
    case ExprKind::kConcat:
      return EvaluateConcat(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
    case ExprKind::kDict:
      return EvaluateCollection(expr);
    case ExprKind::kCall:
      return EvaluateCall(expr);
    case ExprKind::kSlice:
      return EvaluateSlice(expr);
    case ExprKind::kCompare:
      return EvaluateComparison(expr);
    case ExprKind::kConditional: {
      BATON_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.children[1]));
      if (condition.Truthy()) return Evaluate(*expr.children[0]);
      if (expr.children[2] != nullptr) return Evaluate(*expr.children[2]);
      return Value::UndefinedBecause("the condition is false and there is no 'else'");
    }
    default:
      break;
  }
  BATON_ASSIGN_OR_RETURN(const Value first, Evaluate(*expr.children[0]));
  switch (expr.kind) {
    case ExprKind::kAttribute:
      return GetAttribute(first, expr.name);
    case ExprKind::kSubscript: {
      BATON_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.children[1]));
      return GetItem(first, key, budget_);
    }
    case ExprKind::kFilter: {
      BATON_ASSIGN_OR_RETURN(const Arguments args, EvaluateArguments(expr));
      return ApplyFilter(expr.name, first, args, budget_);
    }
    case ExprKind::kTest: {
      BATON_ASSIGN_OR_RETURN(const Arguments args, EvaluateArguments(expr));
      BATON_ASSIGN_OR_RETURN(const bool passes, ApplyTest(expr.name, first, args, budget_));
      return Value(passes);
    }
    case ExprKind::kNot:
      return Value(!first.Truthy());
    case ExprKind::kAnd:
      return first.Truthy() ? Evaluate(*expr.children[1]) : first;
    case ExprKind::kOr:
      return first.Truthy() ? first : Evaluate(*expr.children[1]);
    case ExprKind::kNegate:
      return Negate(first);
    case ExprKind::kPlus:
      return Arithmetic("+", Value(int64_t{0}), first, budget_);
    default:
      break;
  }
  BATON_ASSIGN_OR_RETURN(const Value second, Evaluate(*expr.children[1]));
  return Arithmetic(expr.name, first, second, budget_);
}

Interpreter::Result Interpreter::EvaluateComparison(const Expr& expr) {
  BATON_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.children[i + 1]));
    BATON_ASSIGN_OR_RETURN(const bool holds, Compare(expr.operators[i], left, right, budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Interpreter::Result Interpreter::EvaluateConcat(const Expr& expr) {
  std::vector<Value> parts;
  for (const ExprPtr& child : expr.children) {
    BATON_ASSIGN_OR_RETURN(Value part, Evaluate(*child));
    parts.push_back(std::move(part));
  }
  BATON_ASSIGN_OR_RETURN(Text out, Join(parts, Text(), budget_));
  return Value(std::move(out));
}

Interpreter::Result Interpreter::EvaluateCollection(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& child : expr.children) {
    BATON_ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  if (expr.kind != ExprKind::kDict) {
    return MakeList(std::move(items), budget_, expr.kind == ExprKind::kTuple);
  }
  Dict dict;
  for (size_t i = 0; i < items.size(); i += 2) {
    BATON_RETURN_IF_ERROR(budget_.Spend(i));
    dict.Set(std::move(items[i]), std::move(items[i + 1]));
  }
  return MakeDict(std::move(dict), budget_);
}

Interpreter::Result Interpreter::EvaluateSlice(const Expr& expr) {
  BATON_ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
  BATON_ASSIGN_OR_RETURN(const Value start, EvaluateOptional(expr.children[1]));
  BATON_ASSIGN_OR_RETURN(const Value stop, EvaluateOptional(expr.children[2]));
  BATON_ASSIGN_OR_RETURN(const Value step, EvaluateOptional(expr.children[3]));
  return Slice(object, start, stop, step, budget_);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expr& expr) {
  Arguments args;
  for (size_t i = 1; i < expr.children.size(); ++i) {
    const Expr& child = *expr.children[i];
    const bool is_splat = child.kind == ExprKind::kSplat;
    BATON_ASSIGN_OR_RETURN(Value value, Evaluate(is_splat ? *child.children[0] : child));
    if (is_splat) {
      BATON_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(value, budget_));
      args.positional.insert(args.positional.end(), items.begin(), items.end());
    } else {
      args.positional.push_back(std::move(value));
    }
  }
  for (const auto& [name, child] : expr.keywords) {
    BATON_ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    args.named.emplace_back(name, std::move(value));
  }
  return args;
}

Interpreter::Result Interpreter::EvaluateCall(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  Value function;
  if (callee.kind == ExprKind::kAttribute) {
    BATON_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.children[0]));
    if (Namespace* space = object.name_space(); space != nullptr) {
      BATON_ASSIGN_OR_RETURN(function, GetAttribute(object, callee.name));
    } else {
      BATON_ASSIGN_OR_RETURN(const Arguments args, EvaluateArguments(expr));
      return CallMethod(object, callee.name, args, budget_);
    }
  } else {
    BATON_ASSIGN_OR_RETURN(function, Evaluate(callee));
  }
  BATON_RETURN_IF_ERROR(CheckDefined(function));
  BATON_ASSIGN_OR_RETURN(const Arguments args, EvaluateArguments(expr));
  if (const Macro* macro = function.macro()) return CallMacro(*macro->definition, args);
  if (const Function* builtin = function.function()) return CallFunction(*builtin, args);
  return absl::InvalidArgumentError(fmt::format("a {} cannot be called", function.TypeName()));
}

Interpreter::Result Interpreter::CallFunction(Function function, const Arguments& args) {
  switch (function) {
    case Function::kRange:
      return Range(args);
    case Function::kStrftimeNow:
      return StrftimeNow(args);
    case Function::kNamespace: {
      BATON_RETURN_IF_ERROR(budget_.Spend(kStepsPerNamespace));
      auto space = std::make_shared<Namespace>();
      for (const auto& [name, value] : args.named) space->attributes[name] = value;
      namespaces_.push_back(space);
      return Value(std::move(space));
    }
    case Function::kDict: {
      Dict dict;
      for (const auto& [name, value] : args.named) dict.Set(Value(Text::Template(name)), value);
      return MakeDict(std::move(dict), budget_);
    }
    case Function::kRaiseException: {
      BATON_ASSIGN_OR_RETURN(const Text message, args.String(0, "message", ""));
      return absl::InvalidArgumentError(
          fmt::format("it refuses these messages: {}", message.bytes().substr(0, 1000)));
    }
  }
  return Value();
}

Interpreter::Result Interpreter::Range(const Arguments& args) {
  const bool only_stop = args.positional.size() == 1;
  BATON_ASSIGN_OR_RETURN(const int64_t first, args.Integer(0, "start", 0));
  BATON_ASSIGN_OR_RETURN(const int64_t stop, only_stop ? first : args.Integer(1, "stop", 0));
  BATON_ASSIGN_OR_RETURN(const int64_t step, args.Integer(2, "step", 1));
  const int64_t start = only_stop ? 0 : first;
  if (args.positional.empty() || step == 0) {
    return absl::InvalidArgumentError("range takes 1 to 3 ints, and a step that is not 0");
  }
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return absl::ResourceExhaustedError(
          fmt::format("the chat template asks for a range of more than {} items", kMaxRange));
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return MakeList(std::move(items), budget_);
}

Interpreter::Result Interpreter::StrftimeNow(const Arguments& args) {
  BATON_ASSIGN_OR_RETURN(const Text format, args.String(0, "format", ""));
  std::tm local{};
  localtime_r(&now_, &local);
  char out[256];
  const std::string pattern(format.bytes());
  const size_t bytes = std::strftime(out, sizeof(out), pattern.c_str(), &local);
  return Value(Text::Template(std::string_view(out, bytes)));
}

}  // namespace baton::text::jinja
