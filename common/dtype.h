#pragma once

// Number formats of weights. Block formats are GGUF's (ggml): `block_elements`
// consecutive elements of a row share one block of `block_bytes` bytes.

#include <cstdint>
#include <optional>
#include <string_view>

namespace baton {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

struct DTypeTraits {
  std::string_view name;   // "F32", "Q4_K"
  int32_t block_elements;  // 1 for plain formats
  int32_t block_bytes;
};

const DTypeTraits& Traits(DType dtype);

// "f16" or "F16" -> kF16; empty for unknown names.
std::optional<DType> DTypeFromName(std::string_view name);

// Bytes of `elements` consecutive elements; elements must be a multiple of the block.
inline int64_t DTypeBytes(DType dtype, int64_t elements) {
  return elements / Traits(dtype).block_elements * Traits(dtype).block_bytes;
}

}  // namespace baton
