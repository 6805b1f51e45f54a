#pragma once

#include <string>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct LogFlags {
  std::string level = "info";
};

void AddLogFlags(CLI::App* app, LogFlags* flags);

// InitLogging with the level's name checked.
absl::Status StartLogging(const std::string& process_name, const LogFlags& flags);

}  // namespace baton::cli
