#pragma once

// What `baton plan` prints.

#include <string>

#include "planner/plan.h"
#include "planner/ratio.h"

namespace baton::cli {

// One line. Infinite times (queues that grow without bound) are null.
std::string RatioJson(const planner::RatioQuestion& question, const planner::RatioAnswer& answer);
// The same keys and those of the plan. `chip_usd_per_hour` 0: no cost in dollars.
std::string PlanJson(const planner::PlanRequest& request, const planner::Plan& plan,
                     double chip_usd_per_hour);

std::string RatioTable(const planner::RatioQuestion& question, const planner::RatioAnswer& answer);
std::string PlanTable(const planner::PlanRequest& request, const planner::Plan& plan,
                      double chip_usd_per_hour);

}  // namespace baton::cli
