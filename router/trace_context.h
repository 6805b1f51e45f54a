#pragma once

// W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a call belongs to, and
// whether its spans are recorded. Pure but for NewTrace's random numbers.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace baton::router {

// A call's place in a trace: its own span, under the caller's.
struct CallTrace {
  uint64_t id_high = 0, id_low = 0;  // both 0: no trace
  uint64_t span = 0;                 // the call's
  uint64_t parent = 0;               // the caller's; 0: the trace begins here
  bool sampled = false;              // spans are recorded
  std::string state;                 // tracestate, passed on as it came

  bool on() const { return (id_high | id_low) != 0; }
};

struct ParentTrace {
  uint64_t id_high = 0, id_low = 0, span = 0;
  bool sampled = false;
};

// Empty for what the specification calls invalid. Versions after 00 are read as 00, as it asks for.
std::optional<ParentTrace> ParseTraceparent(std::string_view text);

// Whether it is a list of at most 32 members and 512 bytes in the specification's characters.
bool IsTracestate(std::string_view text);

// The trace of a call with these headers ("" where there is none). A caller's decision is kept;
// where nobody has decided, `ratio` of the traces in [0, 1] are recorded, by a function of the
// trace's id, so that all routers decide alike. No trace when the caller has none and `record` is
// false.
CallTrace NewTrace(std::string_view traceparent, std::string_view tracestate, bool record,
                   double ratio);

std::string Traceparent(const CallTrace& trace);  // "00-...-...-01"
std::string TraceIdText(const CallTrace& trace);  // 32 hexadecimal digits
std::string SpanIdText(uint64_t span);            // 16

}  // namespace baton::router
