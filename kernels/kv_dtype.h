#pragma once

// Number formats of the KV cache.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace baton::kernels {

// kInt8 and kFp8 (E4M3, without infinities) have one float scale for each token and kv head of K,
// and one of V: an element is its number times the scale, and the largest of a vector is the
// format's largest number, 127 or 448.
enum class KvDType : uint8_t { kF32, kF16, kBF16, kInt8, kFp8 };

inline constexpr KvDType kKvDTypes[] = {KvDType::kF32, KvDType::kF16, KvDType::kBF16,
                                        KvDType::kInt8, KvDType::kFp8};

struct KvDTypeTraits {
  std::string_view name;  // "F16", "INT8"
  int32_t element_bytes;
  int32_t together;  // neighbours that lie together in a block; see kv_layout.h
  bool scaled;
};

const KvDTypeTraits& Traits(KvDType dtype);

// "int8" or "INT8" -> kInt8; empty for unknown names.
std::optional<KvDType> KvDTypeFromName(std::string_view name);

// All names as KvDTypeFromName knows them: "f32, f16, bf16, int8, fp8".
std::string KvDTypeNames();

}  // namespace baton::kernels
