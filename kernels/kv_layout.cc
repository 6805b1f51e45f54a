#include "kernels/kv_layout.h"

#include <fmt/format.h>

namespace baton::kernels {

std::string KvLayout::ToString() const {
  return fmt::format("layers={} kv_heads={} head_dim={} block_tokens={} dtype={} order={}", layers,
                     kv_heads, head_dim, block_tokens, Traits(dtype).name, kKvByteOrder);
}

}  // namespace baton::kernels
