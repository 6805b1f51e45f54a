#pragma once

// Where each key and value lies in the paged KV slab.
//
// The slab is block-major: block b is the bytes [b * block_bytes(), (b + 1) * block_bytes()), so
// one block, with all its layers, is one descriptor in a transfer. Inside a block:
//   [layer][K, then V][kv_head], and of each head
//     K: [head_dim][token in block]   elements of `dtype`: a vector register holds one element of
//                                     many tokens' keys, so that scores need no transposing
//     V: [token in block][head_dim]
//     [token in block]                float scales, where the format has them
// BF16's pairs lie together, as machines multiply them: K is [head_dim / 2][token][2], with an odd
// head_dim rounded up, V is [token / 2][head_dim][2].
// Offsets are in bytes from the block's start.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/kv_dtype.h"

namespace baton::kernels {

// To be raised with every change of where the bytes of a block lie, so that workers of builds
// before and after it refuse each other.
inline constexpr int32_t kKvByteOrder = 2;

// The most layers, heads, elements of a head, or tokens of a block of a layout that comes as text:
// offsets inside a block fit 64 bits.
inline constexpr int32_t kMostKvLayoutSize = 16'384;

struct KvLayout {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 0;  // 8, 16 or 32
  KvDType dtype = KvDType::kF16;

  int64_t element_bytes() const { return Traits(dtype).element_bytes; }
  // Elements, and then scales, of one head's keys or values.
  int64_t data_bytes() const {
    const int32_t together = Traits(dtype).together;
    const int32_t dim = (head_dim + together - 1) / together * together;
    return int64_t{block_tokens} * dim * element_bytes();
  }
  int64_t head_bytes() const {
    return data_bytes() + (Traits(dtype).scaled ? block_tokens * sizeof(float) : 0);
  }
  int64_t plane_bytes() const { return kv_heads * head_bytes(); }  // K or V of one layer
  int64_t layer_bytes() const { return 2 * plane_bytes(); }
  int64_t block_bytes() const { return layers * layer_bytes(); }
  int64_t bytes_per_token() const { return block_bytes() / block_tokens; }

  int64_t key_offset(int32_t layer, int32_t head) const {
    return layer * layer_bytes() + head * head_bytes();
  }
  int64_t value_offset(int32_t layer, int32_t head) const {
    return key_offset(layer, head) + plane_bytes();
  }
  // From key_offset or value_offset on, of the block's token `token`.
  int64_t key_element(int32_t token, int32_t element) const {
    return Index(element, token, block_tokens) * element_bytes();
  }
  int64_t value_element(int32_t token, int32_t element) const {
    return Index(token, element, head_dim) * element_bytes();
  }
  int64_t scale(int32_t token) const { return data_bytes() + token * int64_t{sizeof(float)}; }

  int32_t BlocksFor(int64_t tokens) const {
    return static_cast<int32_t>((tokens + block_tokens - 1) / block_tokens);
  }
  // "layers=30 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2", for errors, hashes and
  // the wire.
  std::string ToString() const;
  // What ToString gives, and nothing else: InvalidArgument with the text for other forms, other
  // byte orders, and sizes beyond what a block can be (kMostKvLayoutSize).
  static absl::StatusOr<KvLayout> FromString(std::string_view text);

  bool operator==(const KvLayout&) const = default;

 private:
  // In [rows / together][columns][together].
  int64_t Index(int32_t row, int32_t column, int32_t columns) const {
    const int32_t together = Traits(dtype).together;
    return (int64_t{row / together} * columns + column) * together + row % together;
  }
};

}  // namespace baton::kernels
