#pragma once

// The admin API (admin_routes.h) on an address of its own: HTTP/1.1, with TLS or without, for
// operators and their scripts, apart from what clients can reach.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls_files.h"
#include "router/admin_routes.h"

namespace baton::router {

struct AdminOptions {
  std::string address = "127.0.0.1:8002";  // "host:0" takes a free port
  TlsFiles tls;                            // off: unencrypted; files that change are read again
  AdminBackend backend;
};

// One thread. Bounded: kMaxConnections, small requests, seconds for each to arrive and to be read.
class AdminServer {
 public:
  static constexpr int kMaxConnections = 64;

  // InvalidArgument for an address that is none or TLS files that are unsound, Unavailable when the
  // address is taken.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(const AdminOptions& options);
  virtual ~AdminServer() = default;         // closes all connections
  virtual std::string address() const = 0;  // with the real port
};

}  // namespace baton::router
