#pragma once

// OpenAI's HTTP API, /health, /ready and /metrics over a Dispatcher (Boost.Beast).

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/tls_files.h"
#include "router/dispatcher.h"

namespace baton::router {

class KeyGate;
class Telemetry;

struct HttpOptions {
  std::string address = "127.0.0.1:8000";  // "host:0" takes a free port
  int32_t threads = 2;
  int32_t max_connections = 8192;
  size_t max_header_bytes = 16 << 10;
  Duration idle_timeout = std::chrono::seconds(75);   // between requests of a connection
  Duration read_timeout = std::chrono::seconds(30);   // for one request to arrive
  Duration write_timeout = std::chrono::seconds(30);  // for a client that takes nothing at all
  size_t max_outgoing_bytes =
      4 << 20;  // of one stream, written slower than generated: cut off above
  size_t max_bodies_bytes = 512 << 20;  // of all requests being read at a time: 503 above
  RequestLimits limits;
  TlsFiles tls;                    // off: unencrypted; files that change are read again
  KeyGate* gate = nullptr;         // who may come in; null: everybody. Outlives the server
  bool open_metrics = true;        // /metrics needs no API key
  std::string cors_origin;         // pages of this origin may ask, "*": of any; "": none
  Telemetry* telemetry = nullptr;  // where calls go that were no requests; outlives the server
};

class HttpServer {
 public:
  // Unavailable when the address is taken, naming it. `dispatcher` outlives the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const HttpOptions& options,
                                                            Dispatcher* dispatcher);
  virtual ~HttpServer() = default;              // closes all connections, cancels their requests
  virtual std::string address() const = 0;      // with the real port
  virtual std::string MetricsText() const = 0;  // what /metrics answers

  // From now on each connection is closed after the answer under way, or the next one, which says
  // so (Connection: close): clients go elsewhere without losing a request.
  virtual void AnnounceEnd() = 0;
  // No new connections; those that wait for a request are closed, others after their answers.
  // Returns when none is left, or after `patience`.
  virtual void EndConnections(Duration patience) = 0;
};

}  // namespace baton::router
