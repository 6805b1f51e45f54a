#include "router/access_log.h"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::router {

struct AccessLog::Sink {
  std::shared_ptr<spdlog::sinks::sink> sink;
  bool failing = false;  // was told

  static absl::StatusOr<std::unique_ptr<Sink>> Open(const std::string& path) {
    auto made = std::make_unique<Sink>();
    try {
      if (path == "-") {
        made->sink = std::make_shared<spdlog::sinks::stdout_sink_st>();
      } else {
        made->sink = std::make_shared<spdlog::sinks::basic_file_sink_st>(path);
      }
    } catch (const spdlog::spdlog_ex& error) {
      return absl::PermissionDeniedError(
          fmt::format("the access log {} cannot be opened: {}", path, error.what()));
    }
    made->sink->set_pattern("%v");
    return made;
  }
};

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(const std::string& path) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Sink> sink, Sink::Open(path));
  return std::unique_ptr<AccessLog>(new AccessLog(path, std::move(sink)));
}

AccessLog::AccessLog(std::string path, std::unique_ptr<Sink> sink)
    : path_(std::move(path)), sink_(std::move(sink)), thread_([this] { Run(); }) {}

AccessLog::~AccessLog() {
  queue_.Close();
  thread_.join();
}

void AccessLog::Run() {
  while (true) {
    const bool last = queue_.closed();
    const std::vector<RecordPtr> records = queue_.Take(kPeriod);
    // What ended before the file was moved away may be in the new one, never the other way round.
    if (reopen_.exchange(false)) OpenAgain();
    Write(records);
    if (last && records.empty()) return;
  }
}

void AccessLog::OpenAgain() {
  absl::StatusOr<std::unique_ptr<Sink>> sink = Sink::Open(path_);
  if (sink.ok()) {
    sink_ = *std::move(sink);
    LogInfo(fmt::format("the access log {} was opened again", path_));
  } else {
    LogError(fmt::format("{}; lines go where they went", std::string(sink.status().message())));
  }
}

void AccessLog::Write(const std::vector<RecordPtr>& records) {
  if (records.empty()) return;
  try {
    for (const RecordPtr& record : records) {
      line_.clear();
      AppendRecord(*record, &line_);
      sink_->sink->log(spdlog::details::log_msg("", spdlog::level::info, line_));
    }
    sink_->sink->flush();
    written_ += records.size();
    sink_->failing = false;
  } catch (const spdlog::spdlog_ex& error) {
    failed_ += records.size();
    if (std::exchange(sink_->failing, true)) return;
    LogError(fmt::format("the access log {} cannot be written, lines are lost: {}", path_,
                         error.what()));
  }
}

}  // namespace baton::router
