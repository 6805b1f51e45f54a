#include "engine/kv_mirror.h"

#include <utility>

#include "common/status_macros.h"

namespace baton::engine {

absl::StatusOr<std::unique_ptr<KvMirror>> KvMirror::Create(kernels::Ops* ops,
                                                           const kernels::KvLayout& layout,
                                                           std::span<std::byte> host_slab) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<kernels::Buffer> device,
                         ops->NewBuffer(std::ssize(host_slab)));
  return std::unique_ptr<KvMirror>(new KvMirror(ops, layout, host_slab, std::move(device)));
}

KvMirror::~KvMirror() {
  if (pinned_) ops_->UnpinHost(host_);
}

void KvMirror::Upload(std::span<const int32_t> blocks) {
  for (const int32_t block : blocks) {
    const int64_t offset = block * layout_.block_bytes();
    ops_->ToDevice(device_->data() + offset, host_.data() + offset, layout_.block_bytes());
  }
}

void KvMirror::Download(std::span<const int32_t> blocks, int32_t first_layer, int32_t end_layer) {
  if (blocks.empty()) return;
  pieces_.clear();
  for (const int32_t block : blocks) {
    const int64_t offset = block * layout_.block_bytes() + first_layer * layout_.layer_bytes();
    pieces_.push_back({host_.data() + offset, device_->data() + offset,
                       (end_layer - first_layer) * layout_.layer_bytes()});
  }
  ops_->ToHost(pieces_);
}

}  // namespace baton::engine
