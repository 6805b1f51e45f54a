#pragma once

// /debug/requests of the admin API: how far requests have come, live ones and those that ended
// lately.

#include <string>
#include <string_view>

#include "router/dispatcher.h"
#include "router/http_response.h"
#include "router/telemetry.h"

namespace baton::router {

// {"live":[...],"recent":[...],"refused":[...]}: the oldest live ones, the newest that have ended,
// and calls that became no request; so many of each as `query` says ("limit=100", at most
// Telemetry::kRecent).
HttpResponse DebugRequests(const Dispatcher& dispatcher, const Telemetry& telemetry,
                           std::string_view query);

// {"requests":[...]}: those of the call, or the one, of this id. 404 when there is none (any more).
HttpResponse DebugRequest(const Dispatcher& dispatcher, const Telemetry& telemetry,
                          const std::string& id);

}  // namespace baton::router
