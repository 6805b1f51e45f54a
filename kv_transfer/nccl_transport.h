#pragma once

// A transport around another that adds lanes: data from GPU to GPU over NCCL. Messages, the slab,
// mapping, and the news that a peer is gone stay the other's, for NCCL has none of these.
//
// - A lane carries data one way, from a source to the target that asked for it, over a communicator
//   of its own: with both directions in one, each side's send could wait behind its own receive
//   for the other's. It is opened at the target's first use for it, and a first piece goes over it
//   then, for NCCL connects with the first.
// - A source announces each piece by message once its send is posted, and the target posts the
//   matching receive: pieces are matched by their place in the order of messages. Not more are
//   under way than the target has staging memory for.
// - Data lands in staging memory, and is handed on from there: blocks are never written by NCCL, so
//   a transfer can end at any moment, and a late sender finds nobody's blocks.
// - A lane fails when its peer is gone, when nothing moves for `data_timeout` though something
//   should, or when NCCL says so. It is then aborted, on a thread of its own, for that can block;
//   data that was being sent counts as sent once the abort is through. The peer is told, and does
//   the same.
// - Nothing blocks that a Transport may not, but OpenLane while NCCL and CUDA set things up: at the
//   first lane of a process NCCL looks for its networks.
// - Two services that use one GPU, or different versions of NCCL, can have no lane: OpenLane says
//   so.

#include <memory>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "kv_transfer/gpu_lane.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

struct LaneTimes {
  Duration open_timeout = std::chrono::seconds(8);  // until the first piece is here
  Duration data_timeout = std::chrono::seconds(5);
  Duration close_wait = std::chrono::seconds(2);  // of the destructor, for aborts
};

// `incarnation` is the service's, as in its address.
std::unique_ptr<Transport> WithLanes(std::unique_ptr<Transport> inner, std::unique_ptr<Gpu> gpu,
                                     uint64_t incarnation, const LaneTimes& times = {});

// Why there can be no lane between these two; ok when there can.
absl::Status CheckLane(const GpuAddress& ours, const PeerAddress& theirs);

}  // namespace baton::kv_transfer
