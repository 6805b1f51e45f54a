#pragma once

// What the admin API answers, free of sockets:
//
//   GET  /v1/workers               every worker that the router knows
//   GET  /v1/workers/NAME          one, by its name or address
//   POST /v1/workers/NAME/drain    {"grace_s": 30, "undo": false, "force": false}
//   POST /v1/workers/NAME/role     {"role": "decode", "grace_s": 30, "force": false}
//   GET  /admin/plan               what the live controller sees, has done and why
//   GET  /debug/requests           debug_routes.h
//   GET  /debug/requests/ID
//   GET  /metrics                  as over HTTP
//   GET  /health                   without a key
//
// A POST is answered with 202 and the worker as it is then; what becomes of it, GET tells.

#include <functional>
#include <string>
#include <string_view>

#include "router/dispatcher.h"
#include "router/http_response.h"
#include "router/key_gate.h"
#include "router/telemetry.h"

namespace baton::router {

// What the API is over; all outlive it.
struct AdminBackend {
  Dispatcher* dispatcher = nullptr;
  const KeyGate* gate = nullptr;           // null: everybody may ask
  const Telemetry* telemetry = nullptr;    // null: there is no /debug/requests
  std::function<std::string()> metrics{};  // empty: there is no /metrics
};

struct AdminRequest {
  std::string_view method;
  std::string_view target;
  std::string_view content_type;
  std::string_view body;
  std::string_view authorization{};
};

// Thread-safe. Does not block on workers.
HttpResponse AnswerAdmin(const AdminBackend& backend, const AdminRequest& request);

}  // namespace baton::router
