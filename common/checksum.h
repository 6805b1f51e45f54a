#pragma once

// End-to-end checksum of KV bytes: XXH3, 64 bits. It finds corruption, not forgery.

#include <cstddef>
#include <cstdint>
#include <span>

namespace baton {

uint64_t Checksum(std::span<const std::byte> bytes);

}  // namespace baton
