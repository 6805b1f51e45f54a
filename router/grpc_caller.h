#pragma once

// Who calls, and until when. Internal to the gRPC server: includes gRPC.

#include <grpcpp/server_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "router/key_gate.h"

namespace baton::router {

// The metadata's "authorization"; "" without one.
std::string AuthorizationOf(const grpc::CallbackServerContext& context);

// As key_gate.h's, for a call. A gate that is null is open.
absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              const grpc::CallbackServerContext& context);
absl::Status CheckKey(const KeyGate* gate, const grpc::CallbackServerContext& context);

// What is left of the call's deadline; 0 when it has none.
Duration TimeLeft(const grpc::CallbackServerContext& context);

}  // namespace baton::router
