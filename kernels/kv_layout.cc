#include "kernels/kv_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace baton::kernels {

std::string KvLayout::ToString() const {
  return fmt::format("layers={} kv_heads={} head_dim={} block_tokens={} dtype={} order={}", layers,
                     kv_heads, head_dim, block_tokens, Traits(dtype).name, kKvByteOrder);
}

absl::StatusOr<KvLayout> KvLayout::FromString(std::string_view text) {
  KvLayout layout;
  const std::pair<std::string_view, int32_t*> sizes[] = {{"layers=", &layout.layers},
                                                         {"kv_heads=", &layout.kv_heads},
                                                         {"head_dim=", &layout.head_dim},
                                                         {"block_tokens=", &layout.block_tokens}};
  // Leniently field by field; then the whole must be what these fields are written as.
  std::string_view rest = text;
  for (const auto& [name, size] : sizes) {
    const std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    if (word.starts_with(name)) {
      std::from_chars(word.data() + name.size(), word.data() + word.size(), *size);
    }
  }
  std::string_view dtype = rest.substr(0, rest.find(' '));
  dtype.remove_prefix(std::min<size_t>(std::string_view("dtype=").size(), dtype.size()));
  const std::optional<KvDType> known = KvDTypeFromName(dtype);
  layout.dtype = known.value_or(KvDType::kF16);
  bool fits = known.has_value();
  for (const auto& [name, size] : sizes) fits &= *size >= 1 && *size <= kMostKvLayoutSize;
  if (fits && layout.ToString() == text) return layout;
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is no KV layout of this build, whose order is {}", text.substr(0, 256), kKvByteOrder));
}

}  // namespace baton::kernels
