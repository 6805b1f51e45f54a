#pragma once

// A plan as one HTML page with plots, self-contained.

#include <string>

#include "planner/plan.h"

namespace baton::cli {

// `table` is PlanTable's and `derivation` ExplainRatio's text. Takes as long as some dozens of
// plans.
std::string PlanHtml(const planner::PlanRequest& request, const planner::Plan& plan,
                     const std::string& table, const std::string& derivation);

}  // namespace baton::cli
