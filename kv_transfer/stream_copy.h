#pragma once

// Copying past the caches and hashing in the same registers: each byte is loaded once and stored
// once, so the checksum is that of the bytes that were written.

#include <cstddef>
#include <cstdint>
#include <span>

namespace baton::kv_transfer {

// Whether StreamCopy takes these: equal sizes, whole cache lines of at least 256 bytes, the target
// aligned to 64, and AVX2 (elsewhere never).
bool CanStreamCopy(std::span<const std::byte> to, std::span<const std::byte> from);

// Copies `from` over `to`, which do not overlap. Gives common/checksum.h's checksum of what was
// written, or 0 without `checksum`.
uint64_t StreamCopy(std::span<std::byte> to, std::span<const std::byte> from, bool checksum);

}  // namespace baton::kv_transfer
