#pragma once

// Requests as spans, in OTLP's JSON form (opentelemetry-proto's ExportTraceServiceRequest). Pure.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "router/record_queue.h"

namespace baton::router {

struct OtlpTraces {
  std::string body;
  size_t spans = 0;
};

// A span for each call, and one for each part of its way that was reached. A call of several
// choices is the first one's span; the others are its children. `new_id` gives span ids other than
// 0. `router` names the process among others of the service.
OtlpTraces ToOtlp(std::span<const RecordPtr> records, const std::string& router,
                  const std::function<uint64_t()>& new_id);

}  // namespace baton::router
