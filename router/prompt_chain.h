#pragma once

// The names of a prompt's KV blocks as workers of one kind have them, computed as far as they are
// asked for: a prompt that nobody holds costs one hash.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/block_hash.h"
#include "common/block_journal.h"

namespace baton::router {

// Workers whose blocks have equal names.
struct ChainKind {
  std::string name;  // WorkerInfo::cache_chain
  int32_t block_tokens = 0;

  bool operator==(const ChainKind&) const = default;
};

// Not thread-safe. `prompt` outlives it.
class PromptChain {
 public:
  PromptChain(const ChainKind& kind, std::string_view cache_salt, std::span<const TokenId> prompt);

  // Full blocks of the prompt but its last token, which is computed in any case.
  int32_t blocks() const { return blocks_; }
  int32_t block_tokens() const { return block_tokens_; }
  // Of the `place`-th block, from 1 to blocks().
  BlockKey KeyAt(int32_t place);

 private:
  const std::span<const TokenId> prompt_;
  const int32_t block_tokens_;
  const int32_t blocks_;
  std::vector<BlockHash> hashes_;  // the root, then those of the first blocks
};

}  // namespace baton::router
