#pragma once

// What the admin API answers, free of sockets:
//
//   GET  /v1/workers               every worker that the router knows
//   GET  /v1/workers/NAME          one, by its name or address
//   POST /v1/workers/NAME/drain    {"grace_s": 30, "undo": false, "force": false}
//   POST /v1/workers/NAME/role     {"role": "decode", "grace_s": 30, "force": false}
//   GET  /admin/plan               what the live controller sees, has done and why
//   GET  /health
//
// A POST is answered with 202 and the worker as it is then; what becomes of it, GET tells.

#include <string_view>

#include "router/dispatcher.h"
#include "router/http_response.h"

namespace baton::router {

struct AdminRequest {
  std::string_view method;
  std::string_view target;
  std::string_view content_type;
  std::string_view body;
};

// Thread-safe. Does not block on workers.
HttpResponse AnswerAdmin(Dispatcher& dispatcher, const AdminRequest& request);

}  // namespace baton::router
