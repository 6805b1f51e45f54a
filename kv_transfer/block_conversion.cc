#include "kv_transfer/block_conversion.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"

namespace baton::kv_transfer {

absl::StatusOr<BlockConversion> BlockConversion::Create(const kernels::KvLayout& source,
                                                        const kernels::KvLayout& target,
                                                        int32_t tokens) {
  BATON_ASSIGN_OR_RETURN(kernels::KvConverter converter,
                         kernels::KvConverter::Create({.layout = source}, {.layout = target}));
  return BlockConversion(std::move(converter), source, target, tokens);
}

absl::StatusOr<int32_t> BlockConversion::SetTarget(int32_t first_block,
                                                   std::vector<int32_t> blocks) {
  const int32_t count = target_.BlocksFor(tokens_);
  if (first_block < 0 || first_block > count ||
      blocks.size() != static_cast<size_t>(count - first_block)) {
    return absl::InvalidArgumentError(
        fmt::format("granted {} blocks from block {} of a prompt of {} tokens, which takes {}",
                    blocks.size(), first_block, tokens_, count));
  }
  first_block_ = first_block;
  blocks_ = std::move(blocks);
  if (blocks_.empty()) return source_.BlocksFor(tokens_);
  return first_block * target_.block_tokens / source_.block_tokens;
}

void BlockConversion::Convert(int32_t index, std::span<const std::byte> block,
                              std::span<std::byte> slab) {
  const int32_t block_begin = index * source_.block_tokens;
  const int32_t end = std::min(tokens_, block_begin + source_.block_tokens);
  int32_t token = std::max(block_begin, first_block_ * target_.block_tokens);
  while (token < end) {
    const int32_t target_index = token / target_.block_tokens;
    const int32_t piece_end = std::min(end, (target_index + 1) * target_.block_tokens);
    const int64_t target_block = blocks_[static_cast<size_t>(target_index - first_block_)];
    const std::span<std::byte> to =
        slab.subspan(static_cast<size_t>(target_block * target_.block_bytes()),
                     static_cast<size_t>(target_.block_bytes()));
    converter_.Convert(block.data(), token - block_begin, piece_end - token, to.data(),
                       token % target_.block_tokens);
    token = piece_end;
  }
}

}  // namespace baton::kv_transfer
