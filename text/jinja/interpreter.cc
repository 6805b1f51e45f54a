#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"
#include "text/jinja/lexer.h"
#include "text/jinja/operators.h"
#include "text/jinja/text_ops.h"

namespace baton::text::jinja {

Interpreter::Interpreter(Variables variables, std::time_t now) : now_(now) {
  scopes_.push_back({{"range", Value(Function::kRange)},
                     {"namespace", Value(Function::kNamespace)},
                     {"dict", Value(Function::kDict)},
                     {"raise_exception", Value(Function::kRaiseException)},
                     {"strftime_now", Value(Function::kStrftimeNow)}});
  scopes_.push_back(std::move(variables));
}

Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

absl::StatusOr<Text> Interpreter::Run(const Body& body) {
  first_scope_ = scopes_.size();
  BATON_RETURN_IF_ERROR(Execute(body).status());
  return std::move(output_);
}

absl::Status Interpreter::CheckDepth() const {
  constexpr int kMaxDepth = 400;
  if (depth_ <= kMaxDepth) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("the chat template goes more than {} levels deep", kMaxDepth));
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Body& body) {
  const DepthGuard guard(&depth_);
  BATON_RETURN_IF_ERROR(CheckDepth());
  for (const auto& statement : body) {
    BATON_RETURN_IF_ERROR(budget_.Spend(1));
    BATON_ASSIGN_OR_RETURN(const Flow flow, ExecuteOne(*statement));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      BATON_RETURN_IF_ERROR(budget_.SpendOnBytes(statement.text.size()));
      output_.Append(statement.text);
      break;
    case StatementKind::kOutput: {
      BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expr));
      BATON_RETURN_IF_ERROR(Output(value));
      break;
    }
    case StatementKind::kIf:
      return ExecuteIf(statement);
    case StatementKind::kFor:
      BATON_RETURN_IF_ERROR(ExecuteFor(statement));
      break;
    case StatementKind::kSet: {
      BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expr));
      BATON_RETURN_IF_ERROR(Assign(statement.targets, value));
      break;
    }
    case StatementKind::kSetBlock:
      BATON_RETURN_IF_ERROR(ExecuteSetBlock(statement));
      break;
    case StatementKind::kMacro:
      scopes_.back()[statement.name] = Value(Macro{&statement});
      break;
    case StatementKind::kScope:
      return ExecuteScope(statement);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
    case StatementKind::kCallBlock:
      return ErrorAt(statement.position, "call blocks are not supported");
  }
  return Flow::kOn;
}

absl::Status Interpreter::Output(const Value& value) {
  BATON_RETURN_IF_ERROR(SpendOnPrinting(value, budget_));
  const Text text = ToText(value);
  if (text.size() > Budget::kMaxTextBytes - output_.size()) {
    return budget_.SpendOnBytes(output_.size() + text.size());
  }
  output_.Append(text);
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition != nullptr) {
      BATON_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      if (!condition.Truthy()) continue;
    }
    return Execute(branch.body);
  }
  return Flow::kOn;
}

// The items that pass the loop's own "if".
absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Statement& statement) {
  BATON_ASSIGN_OR_RETURN(const Value iterated, Evaluate(*statement.expr));
  absl::StatusOr<std::vector<Value>> items = Iterate(iterated, budget_);
  if (!items.ok() && items.status().code() == absl::StatusCode::kInvalidArgument) {
    return ErrorAt(statement.position, std::string(items.status().message()));
  }
  if (!items.ok() || statement.condition == nullptr) return items;
  std::vector<Value> passing;
  for (Value& item : *items) {
    scopes_.emplace_back();
    BATON_RETURN_IF_ERROR(Assign(statement.targets, item));
    BATON_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition));
    scopes_.pop_back();
    if (condition.Truthy()) passing.push_back(std::move(item));
  }
  return passing;
}

absl::Status Interpreter::ExecuteFor(const Statement& statement) {
  BATON_ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(statement));
  if (items.empty()) {
    scopes_.emplace_back();
    const absl::Status status = Execute(statement.else_body).status();
    scopes_.pop_back();
    return status;
  }
  const auto list = std::make_shared<const List>(List{std::move(items)});
  for (size_t i = 0; i < list->items.size(); ++i) {
    scopes_.emplace_back();
    scopes_.back()["loop"] = Value(std::make_shared<const LoopState>(LoopState{list, i}));
    BATON_RETURN_IF_ERROR(Assign(statement.targets, list->items[i]));
    BATON_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& statement) {
  Text outer = std::exchange(output_, Text());
  scopes_.emplace_back();
  BATON_RETURN_IF_ERROR(Execute(statement.body).status());
  scopes_.pop_back();
  Value value(std::exchange(output_, std::move(outer)));
  return Assign(statement.targets, value);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteScope(const Statement& statement) {
  Variables variables;
  for (const auto& [name, expr] : statement.parameters) {
    BATON_ASSIGN_OR_RETURN(variables[name], Evaluate(*expr));
  }
  scopes_.push_back(std::move(variables));
  BATON_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
  scopes_.pop_back();
  return flow;
}

absl::Status Interpreter::Assign(const std::vector<Target>& targets, const Value& value) {
  if (targets.size() == 1) return AssignOne(targets[0], value);
  BATON_ASSIGN_OR_RETURN(std::vector<Value> parts, Iterate(value, budget_));
  if (parts.size() != targets.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{} names for {} values", targets.size(), parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    BATON_RETURN_IF_ERROR(AssignOne(targets[i], std::move(parts[i])));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::AssignOne(const Target& target, Value value) {
  if (target.attribute.empty()) {
    scopes_.back()[target.name] = std::move(value);
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const Value object, Look(target.name));
  Namespace* space = object.name_space();
  if (space == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is a {}, and only a namespace's attributes can be set", target.name,
                    object.TypeName()));
  }
  space->attributes[target.attribute] = std::move(value);
  return absl::OkStatus();
}

Interpreter::Result Interpreter::Look(std::string_view name) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    // Between a macro's own scopes and the template's lie its caller's.
    constexpr size_t kTemplateScopes = 2;
    if (i < first_scope_ && i >= kTemplateScopes) continue;
    const auto found = scopes_[i].find(name);
    if (found != scopes_[i].end()) return found->second;
  }
  return Value::UndefinedBecause(fmt::format("'{}' is undefined", name));
}

Interpreter::Result Interpreter::CallMacro(const Statement& macro, const Arguments& args) {
  if (args.positional.size() > macro.parameters.size()) {
    return absl::InvalidArgumentError(fmt::format("macro '{}' takes {} arguments, not {}",
                                                  macro.name, macro.parameters.size(),
                                                  args.positional.size()));
  }
  const size_t outer_first = std::exchange(first_scope_, scopes_.size());
  scopes_.emplace_back();
  for (const auto& [name, value] : args.named) {
    bool known = false;
    for (const auto& [parameter, unused] : macro.parameters) known |= parameter == name;
    if (!known) {
      return absl::InvalidArgumentError(
          fmt::format("macro '{}' has no parameter '{}'", macro.name, name));
    }
  }
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const Value* given = args.Get(i, name);
    Value value = Value::UndefinedBecause(fmt::format("parameter '{}' was not given", name));
    if (given != nullptr) {
      value = *given;
    } else if (fallback != nullptr) {
      BATON_ASSIGN_OR_RETURN(value, Evaluate(*fallback));
    }
    scopes_.back()[name] = std::move(value);
  }
  Text outer = std::exchange(output_, Text());
  BATON_RETURN_IF_ERROR(Execute(macro.body).status());
  Value value(std::exchange(output_, std::move(outer)));
  scopes_.pop_back();
  first_scope_ = outer_first;
  return value;
}

}  // namespace baton::text::jinja
