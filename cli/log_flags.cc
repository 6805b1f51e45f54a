#include "cli/log_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "common/logging.h"

namespace baton::cli {

void AddLogFlags(CLI::App* app, LogFlags* flags) {
  app->add_option("--log-level", flags->level, "debug, info, warning, error")
      ->capture_default_str();
}

absl::Status StartLogging(const std::string& process_name, const LogFlags& flags) {
  static const std::map<std::string, LogLevel> levels = {{"debug", LogLevel::kDebug},
                                                         {"info", LogLevel::kInfo},
                                                         {"warning", LogLevel::kWarning},
                                                         {"error", LogLevel::kError}};
  const auto level = levels.find(flags.level);
  if (level == levels.end()) {
    return absl::InvalidArgumentError(
        fmt::format("--log-level is '{}', but must be debug, info, warning or error", flags.level));
  }
  InitLogging(process_name, level->second);
  return absl::OkStatus();
}

}  // namespace baton::cli
