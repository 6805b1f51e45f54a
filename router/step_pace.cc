#include "router/step_pace.h"

#include <algorithm>
#include <cmath>

namespace baton::router {
namespace {

constexpr double kLatest = 0.1;       // what a report counts at least
constexpr double kMostLog2 = 6;       // that one report may say
constexpr double kStepsOfOctave = 8;  // that a slowness is told in

}  // namespace

planner::StepSums SumsOf(const worker_link::StepTotals& totals) {
  return {.steps = static_cast<double>(totals.steps),
          .prompt_steps = static_cast<double>(totals.prompt_steps),
          .seconds = totals.seconds,
          .prompt_tokens = static_cast<double>(totals.prompt_tokens),
          .prompt_pairs = totals.prompt_pairs,
          .sequences = static_cast<double>(totals.sequences),
          .context_tokens = totals.context_tokens};
}

DecodeStepCost DecodeStepCostOf(const planner::StepLearner& fleet) {
  if (fleet.reports() < StepPace::kLeastReports) return {};
  constexpr double kContext = 1e6;
  const auto seconds = [&](double sequences, double context) {
    return fleet.Seconds(planner::StepLoad{.batch = sequences, .context_tokens = context});
  };
  const double one = seconds(1, 0);
  // What was learned of loads that never came may be anything, but more work takes no less time.
  const double sequence = std::max(0.0, (seconds(65, 0) - one) / 64);
  return {.step_s = std::max(0.0, one - sequence),
          .sequence_s = sequence,
          .context_token_s = std::max(0.0, (seconds(1, kContext) - one) / kContext)};
}

void StepPace::Report(const worker_link::StepTotals& totals, planner::StepLearner* fleet) {
  const bool goes_on = totals.steps >= seen_.steps && totals.seconds >= seen_.seconds;
  const planner::StepSums grown =
      SumsOf(totals) - SumsOf(goes_on ? seen_ : worker_link::StepTotals{});
  seen_ = totals;
  if (!goes_on) reports_ = 0;
  if (!(grown.steps >= 1 && grown.seconds > 0)) return;
  if (fleet->reports() >= kLeastReports) {
    const double ratio = std::log2(grown.seconds / fleet->Seconds(grown));
    ++reports_;
    const double weight = std::max(kLatest, 1.0 / static_cast<double>(reports_));
    slowness_log2_ = (1 - weight) * (reports_ == 1 ? 0 : slowness_log2_) +
                     weight * std::clamp(ratio, -kMostLog2, kMostLog2);
  }
  fleet->Add(grown);
}

double StepPace::slowness() const {
  if (reports_ < kLeastReports) return 1;
  return std::exp2(std::round(kStepsOfOctave * slowness_log2_) / kStepsOfOctave);
}

}  // namespace baton::router
