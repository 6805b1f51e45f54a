#pragma once

// A worker of a simulation as a running cluster has measured it.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "simulator/simulated_worker.h"

namespace baton::cli {

// A file with what a router's live control says at /admin/plan: what its workers' steps take, and
// what they hold. InvalidArgument names the field that is missing or makes no sense.
absl::StatusOr<simulator::SimulatedWorker> LoadMeasuredWorker(const std::string& path);

// The text of such a file; `name` is for errors. Pure.
absl::StatusOr<simulator::SimulatedWorker> MeasuredWorkerFromJson(std::string_view text,
                                                                  const std::string& name);

}  // namespace baton::cli
