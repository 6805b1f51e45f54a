// Stands in for ucx_transport.cc where UCX was not found at build time.

#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const TransportOptions&) {
  return absl::UnavailableError(
      "the transports auto, shm, ucx and nccl need UCX, which was not found when Baton was built "
      "(install libucx-dev and configure again); inproc works without it");
}

}  // namespace baton::kv_transfer
