#pragma once

// The KV slab of a device with memory of its own, beside the host's slab that transports and disks
// know: the same blocks at the same places in both.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace baton::engine {

// One device thread. `ops` and the host's slab outlive it.
class KvMirror {
 public:
  static absl::StatusOr<std::unique_ptr<KvMirror>> Create(kernels::Ops* ops,
                                                          const kernels::KvLayout& layout,
                                                          std::span<std::byte> host_slab);

  ~KvMirror();

  std::byte* device_slab() { return device_->data(); }
  // Whole blocks, host to device.
  void Upload(std::span<const int32_t> blocks);
  // Layers [first_layer, end_layer) of blocks, device to host; done when it returns.
  void Download(std::span<const int32_t> blocks, int32_t first_layer, int32_t end_layer);

 private:
  KvMirror(kernels::Ops* ops, const kernels::KvLayout& layout, std::span<std::byte> host_slab,
           std::unique_ptr<kernels::Buffer> device)
      : ops_(ops),
        layout_(layout),
        host_(host_slab),
        device_(std::move(device)),
        pinned_(ops->PinHost(host_slab)) {}

  kernels::Ops* const ops_;
  const kernels::KvLayout layout_;
  const std::span<std::byte> host_;
  const std::unique_ptr<kernels::Buffer> device_;
  const bool pinned_;  // the host's slab
  std::vector<kernels::CopyPiece> pieces_;
};

}  // namespace baton::engine
