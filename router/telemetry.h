#pragma once

// Where what is known of a request goes when it has ended: the access log, the trace collector, and
// the ring that /debug/requests shows.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "router/access_log.h"
#include "router/otlp_exporter.h"
#include "router/record_queue.h"
#include "router/trace_context.h"

namespace baton::router {

struct TelemetryOptions {
  std::string access_log;  // file, or "-"; "": none
  OtlpOptions otlp;        // no endpoint: no spans
  double trace_ratio = 1;  // of the traces that begin here
};

// Thread-safe. A request costs a few allocations and no system call. Outlives dispatcher and front
// ends.
class Telemetry {
 public:
  static constexpr size_t kRecent = 1024;
  static constexpr size_t kRefused = 256;

  static absl::StatusOr<std::unique_ptr<Telemetry>> Create(const TelemetryOptions& options);

  // The trace of a call with these headers.
  CallTrace TraceOf(std::string_view traceparent, std::string_view tracestate) const {
    return NewTrace(traceparent, tracestate, exporter_ != nullptr, trace_ratio_);
  }

  void Ended(RequestRecord record);

  // The latest kRecent requests, the newest first.
  std::vector<RecordPtr> Recent() const { return Of(recent_); }
  // Likewise the latest kRefused calls that became none: a flood of them leaves the others there.
  std::vector<RecordPtr> Refused() const { return Of(refused_); }

  void ReopenAccessLog();
  std::string MetricsText() const;  // Prometheus text

 private:
  struct Ring {
    const size_t capacity;
    std::vector<RecordPtr> records{};
    size_t next = 0;  // where the oldest is, once it is full
  };

  Telemetry() = default;
  std::vector<RecordPtr> Of(const Ring& ring) const;

  double trace_ratio_ = 1;
  std::unique_ptr<AccessLog> access_log_;
  std::unique_ptr<OtlpExporter> exporter_;
  mutable std::mutex mutex_;  // guards the next two
  Ring recent_{kRecent};
  Ring refused_{kRefused};
};

}  // namespace baton::router
