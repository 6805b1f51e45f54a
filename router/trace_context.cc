#include "router/trace_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/ids.h"

namespace baton::router {
namespace {

constexpr size_t kTraceparentBytes = 55;
constexpr size_t kMaxStateBytes = 512;
constexpr size_t kMaxStateMembers = 32;

// Lower-case hexadecimal digits alone.
std::optional<uint64_t> Hex(std::string_view digits) {
  uint64_t value = 0;
  for (const char c : digits) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return std::nullopt;
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// "vendor", or "tenant@vendor".
bool IsStateKey(std::string_view key) {
  const size_t at = key.find('@');
  const std::string_view system = at == std::string_view::npos ? key : key.substr(at + 1);
  const std::string_view tenant = at == std::string_view::npos ? "t" : key.substr(0, at);
  const auto sound = [](std::string_view part) {
    return std::ranges::all_of(part, [](char c) {
      return IsLower(c) || IsDigit(c) || c == '_' || c == '-' || c == '*' || c == '/';
    });
  };
  const size_t longest = at == std::string_view::npos ? 256 : 14;
  return !system.empty() && system.size() <= longest && IsLower(system[0]) && sound(system) &&
         !tenant.empty() && tenant.size() <= 241 && (IsLower(tenant[0]) || IsDigit(tenant[0])) &&
         sound(tenant);
}

bool IsStateValue(std::string_view value) {
  return !value.empty() && value.size() <= 256 && value.back() != ' ' &&
         std::ranges::all_of(value,
                             [](char c) { return c >= 0x20 && c <= 0x7e && c != ',' && c != '='; });
}

std::string_view Trim(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

uint64_t RandomNotZero() {
  uint64_t value = 0;
  while (value == 0) value = RandomU64();
  return value;
}

// As OpenTelemetry's TraceIdRatioBased: the lower bits are random.
bool InRatio(uint64_t id_low, double ratio) {
  constexpr double kRange = 0x1p63;
  return static_cast<double>(id_low >> 1) < ratio * kRange;
}

}  // namespace

std::optional<ParentTrace> ParseTraceparent(std::string_view text) {
  text = Trim(text);
  if (text.size() < kTraceparentBytes || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  const auto version = Hex(text.substr(0, 2));
  if (!version || *version == 0xff) return std::nullopt;
  const bool longer = text.size() > kTraceparentBytes;
  if (longer && (*version == 0 || text[kTraceparentBytes] != '-')) return std::nullopt;
  const auto high = Hex(text.substr(3, 16));
  const auto low = Hex(text.substr(19, 16));
  const auto span = Hex(text.substr(36, 16));
  const auto flags = Hex(text.substr(53, 2));
  if (!high || !low || !span || !flags) return std::nullopt;
  if ((*high | *low) == 0 || *span == 0) return std::nullopt;
  return ParentTrace{*high, *low, *span, (*flags & 1) != 0};
}

bool IsTracestate(std::string_view text) {
  if (text.empty() || text.size() > kMaxStateBytes) return false;
  size_t members = 0;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view member = Trim(text.substr(0, comma));
    if (!member.empty()) {  // empty ones are allowed
      const size_t equals = member.find('=');
      if (equals == std::string_view::npos || !IsStateKey(member.substr(0, equals)) ||
          !IsStateValue(member.substr(equals + 1)) || ++members > kMaxStateMembers) {
        return false;
      }
    }
    if (comma == std::string_view::npos) return members > 0;
    text.remove_prefix(comma + 1);
  }
}

CallTrace NewTrace(std::string_view traceparent, std::string_view tracestate, bool record,
                   double ratio) {
  CallTrace trace;
  if (const auto parent = traceparent.empty() ? std::nullopt : ParseTraceparent(traceparent)) {
    trace.id_high = parent->id_high;
    trace.id_low = parent->id_low;
    trace.parent = parent->span;
    trace.sampled = parent->sampled;
    if (IsTracestate(tracestate)) trace.state = tracestate;
  } else if (record) {
    trace.id_high = RandomNotZero();
    trace.id_low = RandomU64();
    trace.sampled = InRatio(trace.id_low, ratio);
  } else {
    return trace;
  }
  trace.span = RandomNotZero();
  return trace;
}

std::string Traceparent(const CallTrace& trace) {
  return fmt::format("00-{:016x}{:016x}-{:016x}-{:02x}", trace.id_high, trace.id_low, trace.span,
                     trace.sampled ? 1 : 0);
}

std::string TraceIdText(const CallTrace& trace) {
  return fmt::format("{:016x}{:016x}", trace.id_high, trace.id_low);
}

std::string SpanIdText(uint64_t span) { return fmt::format("{:016x}", span); }

}  // namespace baton::router
