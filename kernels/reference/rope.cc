#include <vector>

#include "kernels/reference/kv_vector.h"
#include "kernels/reference/reference_ops.h"

namespace baton::kernels {
namespace {

// Rotates one head vector in place by the angles of `position`.
void Rotate(const Rope& rope, int64_t position, float* head) {
  const int32_t half = rope.rotary_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float cosine = rope.cosine[position * half + i];
    const float sine = rope.sine[position * half + i];
    float& first = head[rope.pairs == RopePairs::kInterleaved ? 2 * i : i];
    float& second = head[rope.pairs == RopePairs::kInterleaved ? 2 * i + 1 : i + half];
    const float rotated = first * cosine - second * sine;
    second = first * sine + second * cosine;
    first = rotated;
  }
}

}  // namespace

void ReferenceOps::RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab,
                                  int32_t layer, int32_t heads,
                                  std::span<const SequenceRows> sequences, float* q, const float* k,
                                  const float* v) {
  const int32_t dim = layout.head_dim;
  std::vector<float> key(dim);
  for (const SequenceRows& sequence : sequences) {
    for (int32_t i = 0; i < sequence.row_count; ++i) {
      const int64_t row = sequence.first_row + i;
      const int32_t position = sequence.first_position + i;
      for (int32_t h = 0; h < heads; ++h) Rotate(rope, position, q + (row * heads + h) * dim);

      const int64_t block = sequence.block_table[position / layout.block_tokens];
      const int32_t token = position % layout.block_tokens;
      for (int32_t h = 0; h < layout.kv_heads; ++h) {
        const int64_t source = (row * layout.kv_heads + h) * dim;
        key.assign(k + source, k + source + dim);
        Rotate(rope, position, key.data());
        std::byte* base = slab + block * layout.block_bytes();
        StoreKvVector(layout, KvSide::kKey, token, key.data(), base + layout.key_offset(layer, h));
        StoreKvVector(layout, KvSide::kValue, token, v + source,
                      base + layout.value_offset(layer, h));
      }
    }
  }
}

}  // namespace baton::kernels
