#include "router/prompt_chain.h"

#include <algorithm>

namespace baton::router {

PromptChain::PromptChain(const ChainKind& kind, std::string_view cache_salt,
                         std::span<const TokenId> prompt)
    : prompt_(prompt),
      block_tokens_(kind.block_tokens),
      blocks_(static_cast<int32_t>(std::max<size_t>(prompt.size(), 1) - 1) / kind.block_tokens),
      hashes_{ChainRoot(kind.name, cache_salt)} {}

BlockKey PromptChain::KeyAt(int32_t place) {
  const auto tokens = static_cast<size_t>(block_tokens_);
  while (hashes_.size() <= static_cast<size_t>(place)) {
    const size_t begin = (hashes_.size() - 1) * tokens;
    hashes_.push_back(ChainBlock(hashes_.back(), prompt_.subspan(begin, tokens)));
  }
  return KeyOfBlock(hashes_[static_cast<size_t>(place)], place);
}

}  // namespace baton::router
