#include "common/logging.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>
#include <utility>

namespace baton {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::shared_ptr<spdlog::logger> MakeLogger(LogLevel level) {
  auto logger =
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->set_level(ToSpdlog(level));
  logger->flush_on(spdlog::level::debug);
  return logger;
}

struct ProcessLog {
  std::string name = "baton";
  std::shared_ptr<spdlog::logger> logger = MakeLogger(LogLevel::kInfo);
};

ProcessLog& OfProcess() {
  static ProcessLog log;
  return log;
}

thread_local std::string thread_name;  // "": the process'

}  // namespace

void InitLogging(std::string_view process_name, LogLevel level) {
  OfProcess() = {std::string(process_name), MakeLogger(level)};
}

ScopedLogName::ScopedLogName(std::string name)
    : before_(std::exchange(thread_name, std::move(name))) {}
ScopedLogName::~ScopedLogName() { thread_name = std::move(before_); }

void Log(LogLevel level, std::string_view text) {
  const ProcessLog& log = OfProcess();
  log.logger->log(ToSpdlog(level), "{}: {}", thread_name.empty() ? log.name : thread_name, text);
}

}  // namespace baton
