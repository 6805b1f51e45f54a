#pragma once

// The admin API (admin_routes.h) on an address of its own: plain HTTP/1.1 for operators and their
// scripts, apart from what clients can reach.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router/dispatcher.h"

namespace baton::router {

// One thread. Bounded: kMaxConnections, small requests, seconds for each to arrive and to be read.
class AdminServer {
 public:
  static constexpr int kMaxConnections = 64;

  // InvalidArgument for an address that is none, Unavailable when it is taken. "host:0" takes a
  // free port. `dispatcher` outlives the server.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(const std::string& address,
                                                             Dispatcher* dispatcher);
  virtual ~AdminServer() = default;         // closes all connections
  virtual std::string address() const = 0;  // with the real port
};

}  // namespace baton::router
