#pragma once

// How one transfer's blocks, of a source with another KV layout, become blocks of this target.
//
// The wire and the target's machine speak of the source's blocks, the worker of its own: block i of
// a prompt holds its tokens [i * block_tokens, (i + 1) * block_tokens) on each side. A source block
// may fill a part of a target block, or parts of several. Pure but for the memory it is given.

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/kv_convert.h"
#include "kernels/kv_layout.h"

namespace baton::kv_transfer {

class BlockConversion {
 public:
  // Of a prompt of `tokens`. As kernels::CheckConvertible.
  static absl::StatusOr<BlockConversion> Create(const kernels::KvLayout& source,
                                                const kernels::KvLayout& target, int32_t tokens);

  // The target wants its blocks of the prompt from `first_block` on, in `blocks` of its slab. Gives
  // the first of the source's blocks that is needed: the one with the first token that is not
  // cached, or as many as there are when all are. InvalidArgument when these are not the rest of
  // the prompt's blocks; nothing may be converted then.
  absl::StatusOr<int32_t> SetTarget(int32_t first_block, std::vector<int32_t> blocks);

  // Writes what source block `index` of the prompt holds of the tokens wanted. Tokens of cached
  // blocks, which others may be reading, and tokens beyond the prompt are not written. `block`: the
  // source's bytes, aligned to 4. `slab`: the target's.
  void Convert(int32_t index, std::span<const std::byte> block, std::span<std::byte> slab);

 private:
  BlockConversion(kernels::KvConverter converter, const kernels::KvLayout& source,
                  const kernels::KvLayout& target, int32_t tokens)
      : converter_(std::move(converter)), source_(source), target_(target), tokens_(tokens) {}

  kernels::KvConverter converter_;
  kernels::KvLayout source_, target_;
  int32_t tokens_ = 0;
  int32_t first_block_ = 0;  // of the target's
  std::vector<int32_t> blocks_;
};

}  // namespace baton::kv_transfer
