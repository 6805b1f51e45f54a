#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::router {

// The addresses in a workers file: one a line, '#' begins a comment, blank lines are skipped, each
// address counts once.
std::vector<std::string> ParseWorkersFile(std::string_view content);

// NotFound when it cannot be read, InvalidArgument above 1 MiB. Blocks on the disk.
absl::StatusOr<std::vector<std::string>> ReadWorkersFile(const std::string& path);

// In one step: readers see the old or the new.
absl::Status WriteWorkersFile(const std::string& path, const std::vector<std::string>& addresses);

}  // namespace baton::router
