#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/reference/kv_vector.h"
#include "kernels/reference/reference_ops.h"

namespace baton::kernels {
namespace {

// The key or value of one position as floats.
void LoadAt(const KvLayout& layout, const std::byte* slab, std::span<const int32_t> block_table,
            KvSide side, int64_t head_offset, int32_t position, std::vector<float>& to) {
  const int64_t block = block_table[position / layout.block_tokens];
  LoadKvVector(layout, side, position % layout.block_tokens,
               slab + block * layout.block_bytes() + head_offset, to.data());
}

}  // namespace

void ReferenceOps::Attention(const AttentionShape& shape, const KvLayout& layout,
                             const std::byte* slab, int32_t layer,
                             std::span<const SequenceRows> sequences, const float* q, float* out) {
  const int32_t dim = layout.head_dim;
  const int32_t heads_per_kv = shape.heads / layout.kv_heads;
  std::vector<double> weights;
  std::vector<double> sums(dim);
  std::vector<float> vector(dim);
  for (const SequenceRows& sequence : sequences) {
    for (int64_t i = 0; i < int64_t{sequence.row_count} * shape.heads; ++i) {
      const int32_t head = static_cast<int32_t>(i % shape.heads);
      const int32_t kv_head = head / heads_per_kv;
      const int32_t tokens = sequence.first_position + static_cast<int32_t>(i / shape.heads) + 1;
      const int64_t offset = (int64_t{sequence.first_row} * shape.heads + i) * dim;

      weights.assign(tokens, 0);
      double largest = -std::numeric_limits<double>::infinity();
      for (int32_t t = 0; t < tokens; ++t) {
        LoadAt(layout, slab, sequence.block_table, KvSide::kKey, layout.key_offset(layer, kv_head),
               t, vector);
        for (int32_t d = 0; d < dim; ++d) weights[t] += double{q[offset + d]} * vector[d];
        weights[t] *= shape.scale;
        largest = std::max(largest, weights[t]);
      }
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0);
      for (int32_t t = 0; t < tokens; ++t) {
        const double weight = std::exp(weights[t] - largest);
        total += weight;
        LoadAt(layout, slab, sequence.block_table, KvSide::kValue,
               layout.value_offset(layer, kv_head), t, vector);
        for (int32_t d = 0; d < dim; ++d) sums[d] += weight * vector[d];
      }
      for (int32_t d = 0; d < dim; ++d) out[offset + d] = static_cast<float>(sums[d] / total);
    }
  }
}

std::unique_ptr<Ops> CreateReferenceOps() { return std::make_unique<ReferenceOps>(); }

}  // namespace baton::kernels
