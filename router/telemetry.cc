#include "router/telemetry.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "common/status_macros.h"

namespace baton::router {

absl::StatusOr<std::unique_ptr<Telemetry>> Telemetry::Create(const TelemetryOptions& options) {
  std::unique_ptr<Telemetry> telemetry(new Telemetry());
  telemetry->trace_ratio_ = options.trace_ratio;
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
  Ring& ring = shared->id.empty() ? refused_ : recent_;
  if (ring.records.size() < ring.capacity) {
    ring.records.push_back(shared);
  } else {
    oldest = std::exchange(ring.records[ring.next], shared);
    ring.next = (ring.next + 1) % ring.capacity;
  }
}

std::vector<RecordPtr> Telemetry::Of(const Ring& ring) const {
  std::vector<RecordPtr> newest_first;
  newest_first.reserve(ring.capacity);
  const std::lock_guard lock(mutex_);
  const size_t count = ring.records.size();
  for (size_t i = count; i > 0; --i) {
    newest_first.push_back(ring.records[(ring.next + i - 1) % count]);
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
