#pragma once

// Log lines to standard error, with time, level and who says it. Thread-safe. Build the text with
// fmt::format at the call site; spdlog stays behind this header.
//
// Lines are for operations people: say what happened with its numbers, never a prompt's text.

#include <string>
#include <string_view>

namespace baton {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// At most once, before threads start; without it the name is "baton" and the level kInfo.
// `process_name` goes into every line ("router", "decode-0").
void InitLogging(std::string_view process_name, LogLevel level);

// While it lives, the lines of this thread carry `name` instead of the process': workers may share
// a process.
class ScopedLogName {
 public:
  explicit ScopedLogName(std::string name);
  ~ScopedLogName();
  ScopedLogName(const ScopedLogName&) = delete;
  ScopedLogName& operator=(const ScopedLogName&) = delete;

 private:
  std::string before_;
};

void Log(LogLevel level, std::string_view text);
inline void LogDebug(std::string_view text) { Log(LogLevel::kDebug, text); }
inline void LogInfo(std::string_view text) { Log(LogLevel::kInfo, text); }
inline void LogWarning(std::string_view text) { Log(LogLevel::kWarning, text); }
inline void LogError(std::string_view text) { Log(LogLevel::kError, text); }

}  // namespace baton
