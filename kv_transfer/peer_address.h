#pragma once

// What HandoffService::address() carries: how to reach a service, what its slab looks like, and
// where its memory can be mapped. It goes through routers and registries as opaque bytes, so it is
// versioned, bounded and checksummed like a message.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baton::kv_transfer {

// A slab in shared memory, for processes of the same machine and user.
struct SlabFile {
  std::string host;  // boot id and pid namespace: `pid` and `fd` mean something only there
  int32_t pid = 0;
  int32_t fd = 0;
  bool operator==(const SlabFile&) const = default;
};

// The GPU that a service sends from and receives into, for those that can by NCCL.
struct GpuAddress {
  std::string machine;       // boot id: `bus_id` means something only there
  std::string bus_id;        // PCI, such as "0000:65:00.0"
  std::string name;          // such as "NVIDIA H200"
  int32_t index = 0;         // as its process counts
  int32_t nccl_version = 0;  // as NCCL counts: 22809 is 2.28.9
  bool operator==(const GpuAddress&) const = default;
};

struct PeerAddress {
  uint64_t incarnation = 0;
  std::string name;
  std::string family;    // "inproc" or "ucx": who can talk to whom
  std::string endpoint;  // the transport's own address
  std::string layout;    // KvLayout::ToString()
  std::string model_fingerprint;
  int32_t block_count = 0;
  int64_t block_bytes = 0;
  std::optional<SlabFile> slab_file;
  std::optional<GpuAddress> gpu;

  int64_t slab_bytes() const { return block_count * block_bytes; }
  bool operator==(const PeerAddress&) const = default;
};

// InvalidArgument when it takes more than 8 KiB.
absl::StatusOr<std::string> EncodeAddress(const PeerAddress& address);
absl::StatusOr<PeerAddress> DecodeAddress(std::string_view bytes);

// FailedPrecondition, with both sides' values, when neither can take the other's blocks: another
// family or model, or KV layouts that are not equal and between which there is no conversion
// (kernels/kv_convert.h; a service holds all of a model's heads).
absl::Status CheckCompatible(const PeerAddress& ours, const PeerAddress& theirs);

}  // namespace baton::kv_transfer
