#include "router/debug_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>
#include <vector>

namespace baton::router {
namespace {

constexpr size_t kDefaultLimit = 100;

absl::StatusOr<size_t> LimitOf(std::string_view query) {
  constexpr std::string_view kLimit = "limit=";
  if (query.empty()) return kDefaultLimit;
  size_t limit = 0;
  const char* const end = query.data() + query.size();
  if (query.starts_with(kLimit)) {
    const auto [stop, failed] = std::from_chars(query.data() + kLimit.size(), end, limit);
    if (failed == std::errc() && stop == end && limit <= Telemetry::kRecent) return limit;
  }
  return absl::InvalidArgumentError(
      fmt::format("the query must be limit=N, with N up to {}", Telemetry::kRecent));
}

void Append(const RequestRecord& record, std::string* out) {
  if (out->back() != '[') out->push_back(',');
  AppendRecord(record, out);
}

}  // namespace

HttpResponse DebugRequests(const Dispatcher& dispatcher, const Telemetry& telemetry,
                           std::string_view query) {
  const absl::StatusOr<size_t> limit = LimitOf(query);
  if (!limit.ok()) return ErrorResponse(limit.status(), "");
  HttpResponse response;
  std::string& body = response.body;
  body = R"({"live":[)";
  size_t shown = 0;
  for (const RequestRecord& record : dispatcher.LiveRequests()) {
    if (record.state.empty()) continue;  // it has just ended, and is among the recent ones
    if (shown++ == *limit) break;
    Append(record, &body);
  }
  for (const auto& [name, records] :
       {std::pair("recent", telemetry.Recent()), std::pair("refused", telemetry.Refused())}) {
    body += fmt::format(R"(],"{}":[)", name);
    for (size_t i = 0; i < std::min(*limit, records.size()); ++i) Append(*records[i], &body);
  }
  body += "]}";
  return response;
}

HttpResponse DebugRequest(const Dispatcher& dispatcher, const Telemetry& telemetry,
                          const std::string& id) {
  HttpResponse response;
  std::string& body = response.body;
  body = R"({"requests":[)";
  const auto wanted = [&id](const RequestRecord& record) {
    return record.call->request_id == id || record.id == id;
  };
  std::set<std::string> seen;
  // The live ones first: what ends meanwhile is then found among the recent ones.
  for (const RequestRecord& record : dispatcher.LiveRequests()) {
    if (!record.state.empty() && wanted(record) && seen.insert(record.id).second) {
      Append(record, &body);
    }
  }
  for (const RecordPtr& record : telemetry.Recent()) {
    if (wanted(*record) && seen.insert(record->id).second) Append(*record, &body);
  }
  for (const RecordPtr& record : telemetry.Refused()) {
    if (wanted(*record)) Append(*record, &body);
  }
  if (body.back() == '[') {
    return ErrorResponse(404,
                         fmt::format("no request '{}' lives, or ended among the last {}",
                                     id.substr(0, 128), Telemetry::kRecent),
                         "unknown_request");
  }
  body += "]}";
  return response;
}

}  // namespace baton::router
