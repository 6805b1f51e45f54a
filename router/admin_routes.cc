#include "router/admin_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "common/status_macros.h"
#include "router/debug_routes.h"
#include "router/json_fields.h"
#include "router/json_text.h"
#include "router/percent_decode.h"

namespace baton::router {
namespace {

constexpr std::string_view kWorkers = "/v1/workers";
constexpr std::string_view kRequests = "/debug/requests";
constexpr float kDefaultGraceS = 30;
constexpr float kMostGraceS = 86400;

HttpResponse NoSuchPath(std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  return ErrorResponse(404, fmt::format("the admin API has no '{}'", path.substr(0, 128)),
                       "unknown_path");
}

HttpResponse OnlyBy(std::string_view allowed) {
  HttpResponse response =
      ErrorResponse(405, fmt::format("only {} works here", allowed), "method_not_allowed");
  response.headers = fmt::format("Allow: {}\r\n", allowed);
  return response;
}

void AddNumber(std::string_view name, int64_t value, std::string* out) {
  out->append(",\"").append(name).append("\":");
  AppendJsonInt(value, out);
}

void AddText(std::string_view name, std::string_view value, std::string* out) {
  out->append(out->back() == '{' ? "\"" : ",\"").append(name).append("\":");
  AppendJsonString(value, out);
}

void AppendWorker(const WorkerView& worker, std::string* out) {
  out->push_back('{');
  AddText("name", worker.name, out);
  AddText("role", worker.role, out);
  AddText("address", worker.address, out);
  AddText("state", worker.state, out);
  out->append(R"(,"suspect":)").append(worker.suspect ? "true" : "false");
  AddNumber("running", worker.running, out);
  AddNumber("waiting", worker.waiting, out);
  AddNumber("transfers", worker.transfers, out);
  AddNumber("blocks_free", worker.blocks_free, out);
  AddNumber("blocks_held", worker.blocks_held, out);
  AddNumber("blocks_cached", worker.blocks_cached, out);
  AddNumber("blocks_total", worker.blocks_total, out);
  out->push_back('}');
}

void AppendDiscovery(const DiscoveryView& source, std::string* out) {
  out->push_back('{');
  AddText("source", source.source, out);
  AddText("where", source.where, out);
  out->append(R"(,"current":)").append(source.current ? "true" : "false");
  AddText("trouble", source.trouble, out);
  AddNumber("failures", source.failures, out);
  AddNumber("workers", static_cast<int64_t>(source.workers), out);
  out->push_back('}');
}

HttpResponse AllWorkers(const Dispatcher& dispatcher) {
  HttpResponse response;
  response.body = R"({"workers":[)";
  for (const WorkerView& worker : dispatcher.Fleet()) {
    if (response.body.back() != '[') response.body += ',';
    AppendWorker(worker, &response.body);
  }
  response.body += R"(],"discovery":[)";
  for (const DiscoveryView& source : dispatcher.Discovery()) {
    if (response.body.back() != '[') response.body += ',';
    AppendDiscovery(source, &response.body);
  }
  response.body += "]}";
  return response;
}

// By address, else by its name; the first, should names repeat.
HttpResponse OneWorker(const Dispatcher& dispatcher, const std::string& name) {
  const std::vector<WorkerView> fleet = dispatcher.Fleet();
  auto found = std::ranges::find(fleet, name, &WorkerView::address);
  if (found == fleet.end()) found = std::ranges::find(fleet, name, &WorkerView::name);
  if (found == fleet.end()) {
    return ErrorResponse(404, fmt::format("there is no worker '{}'", name), "unknown_worker");
  }
  HttpResponse response;
  AppendWorker(*found, &response.body);
  return response;
}

absl::StatusOr<worker_link::Role> RoleOf(const std::string& name) {
  for (const auto role : {worker_link::Role::kPrefill, worker_link::Role::kDecode}) {
    if (name == RoleName(role)) return role;
  }
  return absl::InvalidArgumentError(
      fmt::format("'role' must be prefill or decode, not '{}'", name.substr(0, 64)));
}

absl::StatusOr<DutyChange> ParseChange(std::string worker, bool drain, std::string_view body) {
  BATON_ASSIGN_OR_RETURN(const boost::json::value value,
                         ParseJsonObject(body.empty() ? "{}" : body));
  const boost::json::object& object = value.get_object();
  FieldReader fields(object);
  BATON_RETURN_IF_ERROR(fields.CheckKnown({drain ? "undo" : "role", "grace_s", "force"}));
  DutyChange change;
  change.worker = std::move(worker);
  float grace_s = kDefaultGraceS;
  BATON_RETURN_IF_ERROR(fields.Read("grace_s", &grace_s));
  if (!(grace_s >= 0 && grace_s <= kMostGraceS)) {
    return absl::InvalidArgumentError(
        fmt::format("'grace_s' is {}, but must be in [0, {}]", grace_s, kMostGraceS));
  }
  change.grace = std::chrono::milliseconds(std::lround(grace_s * 1000));
  BATON_RETURN_IF_ERROR(fields.Read("force", &change.force));
  if (drain) {
    bool undo = false;
    BATON_RETURN_IF_ERROR(fields.Read("undo", &undo));
    change.takes_work = undo;
    return change;
  }
  std::string role;
  BATON_RETURN_IF_ERROR(fields.Read("role", &role));
  BATON_ASSIGN_OR_RETURN(change.role, RoleOf(role));
  return change;
}

HttpResponse Change(Dispatcher& dispatcher, const std::string& worker, bool drain,
                    const AdminRequest& request) {
  // A form of some web page can send no such type: the browser would ask first, and be refused.
  if (!request.content_type.starts_with("application/json")) {
    return ErrorResponse(415, "the body must be application/json", "unsupported_media_type");
  }
  const absl::StatusOr<DutyChange> change = ParseChange(worker, drain, request.body);
  if (!change.ok()) return ErrorResponse(change.status(), "");
  const absl::Status done = dispatcher.SetDuty(*change);
  if (absl::IsNotFound(done))
    return ErrorResponse(404, std::string(done.message()), "unknown_worker");
  if (absl::IsFailedPrecondition(done))
    return ErrorResponse(409, std::string(done.message()), "last_worker");
  if (!done.ok()) return ErrorResponse(done, "");
  HttpResponse response = OneWorker(dispatcher, worker);
  if (response.status == 200) response.status = 202;
  return response;
}

// `rest`: "NAME" or "NAME/VERB".
HttpResponse AnswerWorker(Dispatcher& dispatcher, std::string_view rest,
                          const AdminRequest& request) {
  const size_t slash = rest.find('/');
  const std::string worker = PercentDecode(rest.substr(0, slash));
  if (slash == std::string_view::npos) {
    const bool get = request.method == "GET" || request.method == "HEAD";
    return get ? OneWorker(dispatcher, worker) : OnlyBy("GET, HEAD");
  }
  const std::string_view verb = rest.substr(slash + 1);
  if (verb != "drain" && verb != "role") {
    return NoSuchPath(request.target);
  }
  if (request.method != "POST") return OnlyBy("POST");
  return Change(dispatcher, worker, verb == "drain", request);
}

HttpResponse PlanOf(Dispatcher& dispatcher) {
  HttpResponse response;
  response.body = dispatcher.ControlJson();
  if (!response.body.empty()) return response;
  return ErrorResponse(404, "live control is off: start the router with --control advise or act",
                       "no_control");
}

}  // namespace

HttpResponse AnswerAdmin(const AdminBackend& backend, const AdminRequest& request) {
  const size_t question = request.target.find('?');
  const std::string_view path = request.target.substr(0, question);
  const bool get = request.method == "GET" || request.method == "HEAD";
  HttpResponse response;
  if (path == "/health") {
    if (!get) return OnlyBy("GET, HEAD");
    response.body = R"({"status":"ok"})";
    return response;
  }
  if (backend.gate != nullptr) {
    const absl::Status key = backend.gate->Check(request.authorization);
    if (!key.ok()) return ErrorResponse(key, "");
  }
  if (path == "/admin/plan") return get ? PlanOf(*backend.dispatcher) : OnlyBy("GET, HEAD");
  if (path == kWorkers) return get ? AllWorkers(*backend.dispatcher) : OnlyBy("GET, HEAD");
  if (path.starts_with(kWorkers) && path[kWorkers.size()] == '/') {
    return AnswerWorker(*backend.dispatcher, path.substr(kWorkers.size() + 1), request);
  }
  if (path == "/metrics" && backend.metrics) {
    if (!get) return OnlyBy("GET, HEAD");
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = backend.metrics();
    return response;
  }
  if (path.starts_with(kRequests) && backend.telemetry != nullptr) {
    if (!get) return OnlyBy("GET, HEAD");
    const std::string_view rest = path.substr(kRequests.size());
    const bool query = question != std::string_view::npos;
    if (rest.empty()) {
      return DebugRequests(*backend.dispatcher, *backend.telemetry,
                           query ? request.target.substr(question + 1) : "");
    }
    if (rest[0] == '/') {
      return DebugRequest(*backend.dispatcher, *backend.telemetry, PercentDecode(rest.substr(1)));
    }
  }
  return NoSuchPath(path);
}

}  // namespace baton::router
