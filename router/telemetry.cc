#include "router/telemetry.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "common/status_macros.h"

namespace baton::router {

absl::StatusOr<std::unique_ptr<Telemetry>> Telemetry::Create(const TelemetryOptions& options) {
  std::unique_ptr<Telemetry> telemetry(new Telemetry());
  telemetry->trace_ratio_ = options.trace_ratio;
  telemetry->recent_.reserve(kRecent);
  if (!options.access_log.empty()) {
    BATON_ASSIGN_OR_RETURN(telemetry->access_log_, AccessLog::Open(options.access_log));
  }
  if (!options.otlp.endpoint.empty()) {
    BATON_ASSIGN_OR_RETURN(telemetry->exporter_, OtlpExporter::Create(options.otlp));
  }
  return telemetry;
}

void Telemetry::Ended(RequestRecord record) {
  const auto shared = std::make_shared<const RequestRecord>(std::move(record));
  if (access_log_ != nullptr) access_log_->Put(shared);
  if (exporter_ != nullptr && shared->call->trace.sampled) exporter_->Put(shared);
  RecordPtr oldest;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (recent_.size() < kRecent) {
    recent_.push_back(shared);
  } else {
    oldest = std::exchange(recent_[next_], shared);
    next_ = (next_ + 1) % kRecent;
  }
}

std::vector<RecordPtr> Telemetry::Recent() const {
  std::vector<RecordPtr> newest_first;
  newest_first.reserve(kRecent);
  const std::lock_guard lock(mutex_);
  for (size_t i = recent_.size(); i > 0; --i) {
    newest_first.push_back(recent_[(next_ + i - 1) % recent_.size()]);
  }
  return newest_first;
}

void Telemetry::ReopenAccessLog() {
  if (access_log_ != nullptr) access_log_->Reopen();
}

std::string Telemetry::MetricsText() const {
  std::string text;
  const auto family = [&text](std::string_view name, std::string_view help) {
    fmt::format_to(std::back_inserter(text), "# HELP {0} {1}\n# TYPE {0} counter\n", name, help);
  };
  const auto sample = [&text](std::string_view name, std::string_view result, uint64_t value) {
    fmt::format_to(std::back_inserter(text), "{}{{result=\"{}\"}} {}\n", name, result, value);
  };
  if (access_log_ != nullptr) {
    constexpr std::string_view kLines = "baton_access_log_lines_total";
    family(kLines, "Lines of the access log, by what became of them.");
    sample(kLines, "written", access_log_->written());
    sample(kLines, "dropped", access_log_->dropped());
    sample(kLines, "failed", access_log_->failed());
  }
  if (exporter_ != nullptr) {
    constexpr std::string_view kSpans = "baton_trace_spans_total";
    family(kSpans, "Spans for the trace collector, by what became of them.");
    sample(kSpans, "exported", exporter_->exported());
    sample(kSpans, "failed", exporter_->failed());
    constexpr std::string_view kDropped = "baton_trace_requests_dropped_total";
    family(kDropped, "Sampled requests without spans, because too many waited for the collector.");
    fmt::format_to(std::back_inserter(text), "{} {}\n", kDropped, exporter_->dropped());
  }
  return text;
}

}  // namespace baton::router
