#include "cli/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <optional>
#include <string>

#include "common/status_macros.h"

namespace baton::cli {
namespace {

namespace json = boost::json;
using planner::Trace;
using planner::TraceRequest;

constexpr size_t kMostRequests = 2'000'000;
constexpr size_t kMostBlocks = 50'000'000;  // of all requests together
constexpr int64_t kMostTokens = 100'000'000;

absl::Status BadLine(size_t line, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("line {} of the trace: {}", line, what));
}

// Calls `take(line number, line)` for each line that is not empty, without its end.
template <typename Take>
absl::Status ForEachLine(std::string_view text, Take take) {
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    BATON_RETURN_IF_ERROR(take(number, line));
  }
  return absl::OkStatus();
}

std::optional<int64_t> Integer(std::string_view text, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most) {
    return std::nullopt;
  }
  return value;
}

// "2023-11-16 18:15:46.6805900" in seconds since 1970.
std::optional<double> Timestamp(std::string_view text) {
  if (text.size() < 19 || text.size() > 29 || text[4] != '-' || text[7] != '-' ||
      (text[10] != ' ' && text[10] != 'T') || text[13] != ':' || text[16] != ':') {
    return std::nullopt;
  }
  const auto year = Integer(text.substr(0, 4), 9999), month = Integer(text.substr(5, 2), 12);
  const auto day = Integer(text.substr(8, 2), 31), hour = Integer(text.substr(11, 2), 23);
  const auto minute = Integer(text.substr(14, 2), 59), second = Integer(text.substr(17, 2), 60);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  double fraction = 0;
  if (text.size() > 19) {
    const auto digits = Integer(text.substr(20), 999'999'999);
    if (text[19] != '.' || !digits) return std::nullopt;
    fraction = static_cast<double>(*digits);
    for (size_t i = 20; i < text.size(); ++i) fraction /= 10;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(days * 86400 + *hour * 3600 + *minute * 60 + *second) + fraction;
}

absl::Status CheckCount(const Trace& trace) {
  if (trace.requests.size() <= kMostRequests) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the trace has more than {} requests", kMostRequests));
}

absl::StatusOr<int64_t> Field(const json::object& object, std::string_view key, size_t line) {
  const json::value* value = object.if_contains(key);
  if (value != nullptr && value->is_int64() && value->get_int64() >= 0 &&
      value->get_int64() <= INT64_C(1) << 53) {
    return value->get_int64();
  }
  return BadLine(line, fmt::format("'{}' must be a whole number", std::string(key)));
}

absl::StatusOr<TraceRequest> MooncakeRequest(std::string_view text, size_t line) {
  boost::system::error_code error;
  const json::value parsed = json::parse(text, error);
  if (error || !parsed.is_object()) return BadLine(line, "must be one JSON object");
  const json::object& object = parsed.get_object();
  for (const auto& [key, value] : object) {
    if (key != "timestamp" && key != "input_length" && key != "output_length" &&
        key != "hash_ids") {
      return BadLine(line, fmt::format("unknown field '{}'", std::string(key).substr(0, 40)));
    }
  }
  TraceRequest request;
  BATON_ASSIGN_OR_RETURN(const int64_t timestamp_ms, Field(object, "timestamp", line));
  BATON_ASSIGN_OR_RETURN(request.input_tokens, Field(object, "input_length", line));
  BATON_ASSIGN_OR_RETURN(request.output_tokens, Field(object, "output_length", line));
  request.arrival_s = static_cast<double>(timestamp_ms) / 1000;
  if (request.input_tokens > kMostTokens || request.output_tokens > kMostTokens) {
    return BadLine(line, fmt::format("more than {} tokens", kMostTokens));
  }
  const json::value* hashes = object.if_contains("hash_ids");
  if (hashes == nullptr) return request;
  if (!hashes->is_array()) return BadLine(line, "'hash_ids' must be a list");
  for (const json::value& hash : hashes->get_array()) {
    if (!hash.is_int64()) return BadLine(line, "'hash_ids' must be whole numbers");
    request.prefix_blocks.push_back(hash.get_int64());
  }
  return request;
}

// Empty for a line that is no request for workers: what was refused before it was one.
absl::StatusOr<std::optional<TraceRequest>> LoggedRequest(std::string_view text, size_t line) {
  boost::system::error_code error;
  const json::value parsed = json::parse(text, error);
  if (error || !parsed.is_object()) return BadLine(line, "must be one JSON object");
  const json::object& object = parsed.get_object();
  if (!object.contains("input_tokens")) return std::optional<TraceRequest>();
  TraceRequest request;
  BATON_ASSIGN_OR_RETURN(const int64_t arrival_us, Field(object, "arrival_us", line));
  BATON_ASSIGN_OR_RETURN(request.input_tokens, Field(object, "input_tokens", line));
  if (object.contains("output_tokens")) {
    BATON_ASSIGN_OR_RETURN(request.output_tokens, Field(object, "output_tokens", line));
  }
  if (object.contains("cached_tokens")) {
    BATON_ASSIGN_OR_RETURN(request.cached_tokens, Field(object, "cached_tokens", line));
  }
  if (std::max({request.input_tokens, request.output_tokens, request.cached_tokens}) >
      kMostTokens) {
    return BadLine(line, fmt::format("more than {} tokens", kMostTokens));
  }
  request.arrival_s = static_cast<double>(arrival_us) / 1e6;
  return std::optional(std::move(request));
}

}  // namespace

absl::StatusOr<Trace> ParseAzureCsv(std::string_view text) {
  Trace trace;
  bool has_head = false;
  BATON_RETURN_IF_ERROR(ForEachLine(text, [&](size_t line, std::string_view row) -> absl::Status {
    if (!has_head) {
      has_head = true;
      if (row == "TIMESTAMP,ContextTokens,GeneratedTokens") return absl::OkStatus();
      return BadLine(line, "must be TIMESTAMP,ContextTokens,GeneratedTokens");
    }
    const size_t first = row.find(',');
    const size_t second = first == std::string_view::npos ? first : row.find(',', first + 1);
    if (second == std::string_view::npos) return BadLine(line, "has less than three columns");
    const auto at = Timestamp(row.substr(0, first));
    const auto input = Integer(row.substr(first + 1, second - first - 1), kMostTokens);
    const auto output = Integer(row.substr(second + 1), kMostTokens);
    if (!at) return BadLine(line, "the time must be as in 2023-11-16 18:15:46.6805900");
    if (!input || !output) {
      return BadLine(line, fmt::format("tokens must be whole numbers up to {}", kMostTokens));
    }
    trace.requests.push_back({.arrival_s = *at, .input_tokens = *input, .output_tokens = *output});
    return CheckCount(trace);
  }));
  return trace;
}

absl::StatusOr<Trace> ParseMooncakeJsonl(std::string_view text) {
  Trace trace{.block_tokens = 512};
  size_t blocks = 0;
  BATON_RETURN_IF_ERROR(ForEachLine(text, [&](size_t line, std::string_view row) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(TraceRequest request, MooncakeRequest(row, line));
    blocks += request.prefix_blocks.size();
    if (blocks > kMostBlocks) return BadLine(line, fmt::format("more than {} blocks", kMostBlocks));
    trace.requests.push_back(std::move(request));
    return CheckCount(trace);
  }));
  return trace;
}

absl::StatusOr<Trace> ParseAccessLog(std::string_view text) {
  Trace trace;
  BATON_RETURN_IF_ERROR(ForEachLine(text, [&](size_t line, std::string_view row) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(std::optional<TraceRequest> request, LoggedRequest(row, line));
    if (request) trace.requests.push_back(*std::move(request));
    return CheckCount(trace);
  }));
  if (trace.requests.empty()) {
    return absl::InvalidArgumentError("the access log has no line with input_tokens: no requests");
  }
  // Lines come in the order in which requests ended.
  std::ranges::stable_sort(trace.requests, {}, &TraceRequest::arrival_s);
  return trace;
}

absl::StatusOr<Trace> ParseTrace(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) {
    return absl::InvalidArgumentError("the trace is empty: it has no requests");
  }
  if (text[start] != '{') return ParseAzureCsv(text);
  const std::string_view first = text.substr(start, text.find('\n', start) - start);
  return first.find("\"arrival_us\"") == std::string_view::npos ? ParseMooncakeJsonl(text)
                                                                : ParseAccessLog(text);
}

}  // namespace baton::cli
