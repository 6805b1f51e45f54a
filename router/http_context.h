#pragma once

// What all connections of an HTTP server share.

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "router/call_ids.h"
#include "router/dispatcher.h"
#include "router/http_server.h"

namespace baton::router {

// Thread-safe.
class HttpContext {
 public:
  HttpContext(const HttpOptions& options, Dispatcher* dispatcher,
              std::function<void(std::function<void()>)> offload);

  const HttpOptions& options() const { return options_; }
  Dispatcher* dispatcher() const { return dispatcher_; }
  int64_t started_s() const { return started_s_; }

  std::string NextRequestId() { return ids_.Next(); }

  // Runs work that takes longer than a connection's thread may be away (tokenizing long prompts).
  void Offload(std::function<void()> work) const { offload_(std::move(work)); }

  // Memory for a body that is about to be read; false when all bodies together would have too much.
  bool ReserveBody(size_t bytes);
  void FreeBody(size_t bytes) { body_bytes_ -= bytes; }

  bool OpenConnection();  // false: there are max_connections
  void CloseConnection() { --connections_; }
  int32_t connections() const { return connections_; }
  bool ending() const { return ending_; }  // connections are closed after their answers
  void End() { ending_ = true; }
  void CountResponse(int status);
  void CountDisconnect() { ++disconnects_; }
  void CountSlowClient() { ++slow_clients_; }
  void CountFailedHandshake() { ++failed_handshakes_; }

  // Prometheus text of the above.
  std::string MetricsText() const;

 private:
  const HttpOptions options_;
  Dispatcher* const dispatcher_;
  const std::function<void(std::function<void()>)> offload_;
  const int64_t started_s_;
  CallIds ids_;
  std::atomic<size_t> body_bytes_{0};
  std::atomic<int32_t> connections_{0};
  std::atomic<bool> ending_{false};
  std::atomic<uint64_t> disconnects_{0};
  std::atomic<uint64_t> slow_clients_{0};
  std::atomic<uint64_t> failed_handshakes_{0};
  std::array<std::atomic<uint64_t>, 600> responses_{};  // by status code
};

}  // namespace baton::router
