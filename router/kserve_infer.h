#pragma once

// ModelInfer and ModelStreamInfer. Internal to the gRPC server: includes gRPC.

#include <grpcpp/support/server_callback.h>

#include "inference/grpc_service.pb.h"
#include "router/grpc_caller.h"

namespace baton::router {

// A unary call's answer is always in one piece.
// Reactors delete themselves when gRPC is done with them. A call that is cancelled, passes its
// deadline or breaks cancels its requests.
grpc::ServerUnaryReactor* StartInfer(const GrpcBackend& backend,
                                     grpc::CallbackServerContext* context,
                                     const inference::ModelInferRequest* request,
                                     inference::ModelInferResponse* response);

// At most 64 requests of a stream run at a time: it is not read beyond. One that leaves more than
// 4 MiB unread is cancelled.
grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
StartStreamInfer(const GrpcBackend& backend, grpc::CallbackServerContext* context);

}  // namespace baton::router
