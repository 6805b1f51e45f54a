#pragma once

// Numbers of workers in a file: the live controller writes how many there shall be, and who starts
// and stops workers ('baton up', or a script) reads it.
//
//   prefill 3
//   decode 2

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router/plan_executor.h"

namespace baton::router {

struct ReplicaCounts {
  int64_t prefill = 0;
  int64_t decode = 0;

  bool operator==(const ReplicaCounts&) const = default;
};

inline constexpr int64_t kMostFileReplicas = 10'000;

// NotFound where there is no file, InvalidArgument where it has something else.
absl::StatusOr<ReplicaCounts> ReadReplicas(const std::string& path);
// In one step: readers see the old or the new.
absl::Status WriteReplicas(const std::string& path, const ReplicaCounts& counts);

// One process writes it.
std::unique_ptr<PlanExecutor> ReplicasFileExecutor(const std::string& path);

}  // namespace baton::router
