#pragma once

// The little that the NCCL transport asks of a GPU: lanes, each of which carries pieces of bytes
// one way between two GPUs. Implemented over CUDA and NCCL (nccl_gpu.cc), and by the tests in
// memory.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kv_transfer/peer_address.h"

namespace baton::kv_transfer {

// One side's end of a lane: a communicator of two ranks, and kSlots pieces of staging memory.
//
// - One end sends, the other receives: the k-th Send goes to the k-th Receive, which must name as
//   many bytes. What is sent and not received, or the other way round, stays for ever: only
//   destruction ends it. Neither end notices that the other is gone.
// - Piece k lies in slot k % kSlots from its start until piece k + kSlots is started.
// - One thread uses it, but the destructor may run on another. Nothing blocks but the destructor,
//   which stops what is under way wherever it is stuck, and waits until the GPU neither reads what
//   was to be sent nor writes.
class GpuLane {
 public:
  static constexpr uint64_t kSlots = 8;
  static constexpr size_t kSlotBytes = 1 << 20;

  struct Progress {
    bool connected = false;  // with the other end
    // Pieces of this end. What is `posted` comes to its end without this process's doing as soon as
    // the other end does its part; `done` is here, or was sent and is not read any more.
    uint64_t posted = 0, done = 0;
  };

  virtual ~GpuLane() = default;
  // One piece of these parts, one behind the other: at most kSlotBytes of host memory or of this
  // GPU's, which are read until the piece is done.
  virtual void Send(std::vector<std::span<const std::byte>> parts) = 0;
  virtual void Receive(size_t bytes) = 0;
  // Of a piece that is done and whose slot was not taken again, in pinned host memory.
  virtual std::span<const std::byte> Received(uint64_t piece) const = 0;
  // Goes on with what is under way. An error is for good.
  virtual absl::StatusOr<Progress> Poll() = 0;
};

class Gpu {
 public:
  virtual ~Gpu() = default;  // after its lanes
  virtual const GpuAddress& address() const = 0;
  // What both ends of a new lane must know; at most kMaxLaneIdBytes.
  virtual absl::StatusOr<std::string> NewLaneId() = 0;
  virtual absl::StatusOr<std::unique_ptr<GpuLane>> OpenLane(const std::string& id, bool sends) = 0;
};

inline constexpr uint32_t kMaxLaneIdBytes = 256;

// The GPU with this index, as CUDA counts those that this process may see. Unavailable with the
// reason: built without NCCL (Unimplemented), no NCCL library, no driver, no such GPU.
absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(int32_t index);

}  // namespace baton::kv_transfer
