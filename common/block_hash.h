#pragma once

// The name of a KV block: SHA-256 over the chain of everything before it. Two blocks have the same
// hash exactly when model, KV layout, salt and all tokens up to the block's end are the same, so
// a hash is enough to share KV, and cannot be forged (CVE-2025-25183 was a weak hash here).

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace baton {

using BlockHash = std::array<uint8_t, 32>;

// The chain's root: model and KV layout (`fingerprint`) and the tenant (`salt`; "" for none).
BlockHash ChainRoot(std::string_view fingerprint, std::string_view salt);

// The hash of the block of `tokens` that follows `previous`.
BlockHash ChainBlock(const BlockHash& previous, std::span<const TokenId> tokens);

// Hashes of all full blocks of `tokens`: floor(tokens.size() / block_tokens) of them.
std::vector<BlockHash> ChainFullBlocks(const BlockHash& root, std::span<const TokenId> tokens,
                                       int block_tokens);

// For hash tables: a cryptographic hash is already well mixed.
struct BlockHashHasher {
  size_t operator()(const BlockHash& hash) const;
};

}  // namespace baton
