#pragma once

// One token's key or value of one kv head, in the KV cache's format.

#include <cstddef>

#include "kernels/kv_layout.h"

namespace baton::kernels {

enum class KvSide { kKey, kValue };

// `head`: the head's keys or values in the token's block (KvLayout::key_offset or value_offset);
// `token`: its index in the block. [layout.head_dim] floats.
void StoreKvVector(const KvLayout& layout, KvSide side, int32_t token, const float* from,
                   std::byte* head);
void LoadKvVector(const KvLayout& layout, KvSide side, int32_t token, const std::byte* head,
                  float* to);

}  // namespace baton::kernels
