#pragma once

// baton.v1.Baton, standard health and reflection over a Dispatcher.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls_files.h"
#include "router/dispatcher.h"

namespace baton::router {

class KeyGate;
class Telemetry;

struct GrpcOptions {
  std::string address = "127.0.0.1:8001";
  RequestLimits limits;
  TlsFiles tls;                    // off: unencrypted
  KeyGate* gate = nullptr;         // who may come in; null: everybody. Outlives the server
  Telemetry* telemetry = nullptr;  // where calls go that were no requests; outlives the server
};

class GrpcServer {
 public:
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Create(const GrpcOptions& options,
                                                            Dispatcher* dispatcher);
  virtual ~GrpcServer() = default;
  virtual std::string address() const = 0;
};

}  // namespace baton::router
