#pragma once

// Errors as gRPC's clients get them. Internal to the gRPC server: includes gRPC.

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace baton::router {

// With google.rpc details, in the trailer grpc-status-details-bin: RetryInfo where it is known when
// to come again; BadRequest with the field, for an InvalidArgument that has one; ErrorInfo with the
// reason (HTTP's `code` in upper case, or the status code's name), domain "baton".
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace baton::router
