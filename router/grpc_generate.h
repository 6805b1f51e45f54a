#pragma once

// One Generate call. Internal to the gRPC server: includes gRPC.

#include <grpcpp/support/server_callback.h>

#include "baton/v1/baton.pb.h"
#include "router/grpc_caller.h"

namespace baton::router {

// Submits the request and streams its answer. The reactor deletes itself when gRPC is done with it.
// A client that cancels, whose deadline passes or whose connection breaks cancels the request; so
// does one that leaves more than 4 MiB unread (it sees CANCELLED).
grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(const GrpcBackend& backend,
                                                              grpc::CallbackServerContext* context,
                                                              const v1::GenerateRequest& request);

}  // namespace baton::router
