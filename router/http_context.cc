#include "router/http_context.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "router/key_gate.h"
#include "router/telemetry.h"

namespace baton::router {

HttpContext::HttpContext(const HttpOptions& options, Dispatcher* dispatcher,
                         std::function<void(std::function<void()>)> offload)
    : options_(options),
      dispatcher_(dispatcher),
      offload_(std::move(offload)),
      started_s_(UnixSeconds()) {}

bool HttpContext::ReserveBody(size_t bytes) {
  if (body_bytes_.fetch_add(bytes) + bytes <= options_.max_bodies_bytes) return true;
  body_bytes_ -= bytes;
  return false;
}

bool HttpContext::OpenConnection() {
  if (connections_.fetch_add(1) < options_.max_connections) return true;
  --connections_;
  return false;
}

void HttpContext::CountResponse(int status) {
  ++responses_[static_cast<size_t>(status) < responses_.size() ? static_cast<size_t>(status) : 0];
}

std::string HttpContext::MetricsText() const {
  std::string text;
  const auto family = [&text](std::string_view name, std::string_view kind, std::string_view help) {
    fmt::format_to(std::back_inserter(text), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, kind);
  };
  const auto sample = [&text](std::string_view name, uint64_t value) {
    fmt::format_to(std::back_inserter(text), "{} {}\n", name, value);
  };
  family("baton_http_connections", "gauge", "Open HTTP connections.");
  sample("baton_http_connections", static_cast<uint64_t>(connections_.load()));
  family("baton_http_body_bytes", "gauge", "Memory reserved for request bodies.");
  sample("baton_http_body_bytes", body_bytes_.load());
  family("baton_http_client_disconnects_total", "counter",
         "Completions cancelled because the client went away.");
  sample("baton_http_client_disconnects_total", disconnects_.load());
  family("baton_http_slow_clients_total", "counter",
         "Completions cancelled because the client read too slowly.");
  sample("baton_http_slow_clients_total", slow_clients_.load());
  family("baton_http_failed_handshakes_total", "counter",
         "Connections on which TLS could not be agreed on.");
  sample("baton_http_failed_handshakes_total", failed_handshakes_.load());
  family("baton_http_responses_total", "counter", "HTTP answers by status code.");
  for (size_t status = 0; status < responses_.size(); ++status) {
    const uint64_t count = responses_[status].load();
    if (count == 0) continue;
    sample(fmt::format("baton_http_responses_total{{code=\"{}\"}}", status), count);
  }
  if (options_.gate != nullptr) text += options_.gate->MetricsText();
  if (options_.telemetry != nullptr) text += options_.telemetry->MetricsText();
  return text;
}

}  // namespace baton::router
