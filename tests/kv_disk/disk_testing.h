#pragma once

// What the tests of the disk cache share: blocks of known content, and chains of hashes.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "common/block_hash.h"

namespace baton::kv_disk {

inline constexpr int64_t kBlockBytes = 5000;  // no multiple of a page

inline BlockHash Name(uint32_t number) {
  BlockHash hash{};
  std::memcpy(hash.data(), &number, sizeof number);
  return hash;
}

inline std::vector<BlockHash> Chain(uint32_t first, size_t blocks) {
  std::vector<BlockHash> chain;
  for (size_t i = 0; i < blocks; ++i) chain.push_back(Name(first + static_cast<uint32_t>(i)));
  return chain;
}

// The content of the block of that name.
inline std::vector<std::byte> Content(const BlockHash& hash, int64_t bytes = kBlockBytes) {
  uint32_t seed = 0;
  std::memcpy(&seed, hash.data(), sizeof seed);
  std::mt19937 random(seed + 1);
  std::vector<std::byte> block(static_cast<size_t>(bytes));
  for (std::byte& byte : block) byte = static_cast<std::byte>(random());
  return block;
}

}  // namespace baton::kv_disk
