#pragma once

// KV blocks from one layout into another: between block sizes, number formats and the kv heads that
// tensor-parallel ranks hold.
//
// Same format: elements and scales move as they are. Other formats: each element goes through its
// float and is rounded as Ops::RopeAndStoreKv rounds it, so the target holds bit for bit what
// storing the source's numbers into it would have left there.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"

namespace baton::kernels {

// What one worker holds of a model's KV: layout.kv_heads heads, from first_head on.
struct KvShard {
  KvLayout layout;
  int32_t first_head = 0;

  int32_t end_head() const { return first_head + layout.kv_heads; }
  std::string ToString() const;  // the layout's, and the heads where they do not begin with 0
};

// What rank `rank` of `ranks` (1, 2 or 4) holds of the H heads of `whole`: [rank * H / ranks,
// (rank + 1) * H / ranks). InvalidArgument when there is no such rank, or no head for each.
absl::StatusOr<KvShard> ShardOf(const KvLayout& whole, int32_t rank, int32_t ranks);

// FailedPrecondition, with both sides' values, unless blocks of `source` can become blocks of
// `target`: equal layers and head_dim, blocks of 8, 16 or 32 tokens, a head that both hold.
absl::Status CheckConvertible(const KvShard& source, const KvShard& target);

// Not thread-safe: it has scratch memory, taken at creation. Blocks of several converters may be
// written at the same time where their tokens or heads differ, BF16 by pairs of tokens.
class KvConverter {
 public:
  // As CheckConvertible; or as CreateCpuOps when the machine has no such instruction set.
  static absl::StatusOr<KvConverter> Create(const KvShard& source, const KvShard& target,
                                            CpuIsa isa = CpuIsa::kAuto);

  // Tokens [source_token, source_token + tokens) of a source block become those from target_token
  // on of a target block, in all layers and in the heads that both shards hold. Nothing else of the
  // target block is written. Both first tokens are multiples of 8, the tokens lie inside both
  // blocks; blocks are aligned to 4 bytes and do not overlap.
  void Convert(const std::byte* source_block, int32_t source_token, int32_t tokens,
               std::byte* target_block, int32_t target_token);

 private:
  KvConverter(const KvShard& source, const KvShard& target, CpuIsa isa);

  KvShard source_, target_;
  CpuIsa isa_;
  std::vector<float> scratch_;  // none where the formats are equal
};

}  // namespace baton::kernels
