#pragma once

// Runs a parsed template.

#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/jinja/ast.h"
#include "text/jinja/budget.h"
#include "text/jinja/builtins.h"
#include "text/jinja/value.h"

namespace baton::text::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

// One rendering; not thread-safe. The template must outlive it.
class Interpreter {
 public:
  // `now` is what strftime_now prints, in local time.
  Interpreter(Variables variables, std::time_t now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // InvalidArgument with line and column for what the template or its data do wrong and for
  // raise_exception; ResourceExhausted when the budget, the depth or the output is too large.
  absl::StatusOr<Text> Run(const Body& body);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Result = absl::StatusOr<Value>;
  class DepthGuard {
   public:
    explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
    ~DepthGuard() { --*depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;

   private:
    int* depth_;
  };

  absl::Status CheckDepth() const;
  absl::StatusOr<Flow> Execute(const Body& body);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement);
  absl::Status ExecuteFor(const Statement& statement);
  absl::StatusOr<std::vector<Value>> LoopItems(const Statement& statement);
  absl::Status ExecuteSetBlock(const Statement& statement);
  absl::StatusOr<Flow> ExecuteScope(const Statement& statement);
  absl::Status Output(const Value& value);
  absl::Status Assign(const std::vector<Target>& targets, const Value& value);
  absl::Status AssignOne(const Target& target, Value value);

  Result Evaluate(const Expr& expr);
  Result EvaluateNode(const Expr& expr);
  Result EvaluateOptional(const ExprPtr& expr);  // undefined for null
  Result EvaluateComparison(const Expr& expr);
  Result EvaluateConcat(const Expr& expr);
  Result EvaluateCollection(const Expr& expr);
  Result EvaluateCall(const Expr& expr);
  Result EvaluateSlice(const Expr& expr);
  absl::StatusOr<Arguments> EvaluateArguments(const Expr& expr);
  Result CallFunction(Function function, const Arguments& args);
  Result CallMacro(const Statement& macro, const Arguments& args);
  Result Range(const Arguments& args);
  Result StrftimeNow(const Arguments& args);
  Result Look(std::string_view name) const;

  // Scopes from the innermost outwards, down to `first_scope_`, then the template's own.
  std::vector<Variables> scopes_;
  size_t first_scope_ = 0;                              // a macro does not see its caller's scopes
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end: they may hold cycles
  const std::time_t now_;
  Budget budget_;
  Text output_;
  int depth_ = 0;  // of bodies and expressions inside each other, macros included
};

}  // namespace baton::text::jinja
