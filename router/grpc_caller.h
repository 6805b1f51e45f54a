#pragma once

// Who calls, and until when. Internal to the gRPC server: includes gRPC.

#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "router/call_ids.h"
#include "router/dispatcher.h"
#include "router/key_gate.h"
#include "router/long_work.h"
#include "router/telemetry.h"

namespace baton::router {

// The metadata's "authorization"; "" without one.
std::string AuthorizationOf(const grpc::CallbackServerContext& context);

// As key_gate.h's, for a call. A gate that is null is open.
absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              const grpc::CallbackServerContext& context);
absl::Status CheckKey(const KeyGate* gate, const grpc::CallbackServerContext& context);

// Calls as the telemetry knows them. Thread-safe.
class GrpcCalls {
 public:
  // `telemetry` may be null; it outlives this.
  explicit GrpcCalls(Telemetry* telemetry) : telemetry_(telemetry) {}

  // By the metadata's x-request-id, traceparent and tracestate. `method`:
  // "baton.v1.Baton/Generate".
  std::shared_ptr<const CallInfo> Begin(const grpc::CallbackServerContext& context,
                                        std::string_view method);
  // The id and the trace for the client; before anything is written to it.
  static void Tell(const CallInfo& call, grpc::CallbackServerContext* context);
  // It became no request.
  void Refused(std::shared_ptr<const CallInfo> call, const absl::Status& why) const;

 private:
  Telemetry* const telemetry_;
  CallIds ids_;
};

// What calls that generate need. All outlive the calls; none is null but perhaps the gate.
struct GrpcBackend {
  Dispatcher* dispatcher = nullptr;
  KeyGate* gate = nullptr;
  GrpcCalls* calls = nullptr;
  LongWork* long_work = nullptr;
  RequestLimits limits;
};

// What is left of the call's deadline; 0 when it has none.
Duration TimeLeft(const grpc::CallbackServerContext& context);

}  // namespace baton::router
