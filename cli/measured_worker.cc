#include "cli/measured_worker.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>

#include "cli/plan_facts.h"
#include "common/status_macros.h"
#include "planner/step_learner.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

constexpr size_t kMostPlanBytes = 1 << 20;
constexpr double kMostKvTokens = 1e10;

// Reads numbers of an object; the first that is not as it should be is the status.
class Reader {
 public:
  Reader(const json::object& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  double Number(const char* key, double least, double most) {
    const json::value* const value = object_.if_contains(key);
    const double number = value != nullptr && value->is_number() ? value->to_number<double>() : NAN;
    if (number >= least && number <= most) return number;
    status_.Update(
        absl::InvalidArgumentError(value == nullptr || value->is_null()
                                       ? fmt::format("{} has no '{}'", where_, key)
                                       : fmt::format("{}: '{}' must be a number from {:g} to {:g}",
                                                     where_, key, least, most)));
    return least;
  }
  const absl::Status& status() const { return status_; }

 private:
  const json::object& object_;
  const std::string where_;
  absl::Status status_;
};

const json::object* ObjectIn(const json::object* object, const char* key) {
  if (object == nullptr) return nullptr;
  const json::value* const value = object->if_contains(key);
  return value != nullptr ? value->if_object() : nullptr;
}

}  // namespace

absl::StatusOr<simulator::SimulatedWorker> MeasuredWorkerFromJson(std::string_view text,
                                                                  const std::string& name) {
  boost::system::error_code error;
  const json::value parsed = json::parse(text, error);
  const json::object* const model = ObjectIn(error ? nullptr : parsed.if_object(), "model");
  const json::object* const seconds = ObjectIn(model, "coefficients_s");
  if (seconds == nullptr) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is not what a router with --control says at /admin/plan: there is no object 'model' "
        "with an object 'coefficients_s'",
        name));
  }
  Reader shape(*model, fmt::format("'model' of {}", name));
  simulator::SimulatedWorker worker;
  const double kv_tokens = shape.Number("kv_tokens", worker.block_tokens, kMostKvTokens);
  worker.kv_blocks = static_cast<int32_t>(kv_tokens / worker.block_tokens);
  worker.chunk_tokens = static_cast<int32_t>(shape.Number("chunk_tokens", 1, 1 << 20));
  worker.max_batch = static_cast<int32_t>(shape.Number("batch_max", 1, simulator::kMostBatch));
  if (shape.Number("reports", 0, 1e18) < 1) {
    return absl::InvalidArgumentError(fmt::format("{} has measured nothing yet", name));
  }
  BATON_RETURN_IF_ERROR(shape.status());
  // A coefficient of next to nothing may come out below 0.
  Reader coefficients(*seconds, fmt::format("'coefficients_s' of {}", name));
  const auto number = [&](const char* key) { return coefficients.Number(key, -1e3, 1e6); };
  const planner::StepCoefficients learned{.step = number("step"),
                                          .prompt_step = number("prompt_step"),
                                          .prompt_token = number("prompt_token"),
                                          .prompt_pair = number("prompt_pair"),
                                          .sequence = number("sequence"),
                                          .context_token = number("context_token")};
  BATON_RETURN_IF_ERROR(coefficients.status());
  worker.step_s = [learned](const planner::StepLoad& load) { return learned.Seconds(load); };
  return worker;
}

absl::StatusOr<simulator::SimulatedWorker> LoadMeasuredWorker(const std::string& path) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMostPlanBytes));
  return MeasuredWorkerFromJson(text, path);
}

}  // namespace baton::cli
