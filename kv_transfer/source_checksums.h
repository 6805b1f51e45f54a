#pragma once

// Checksums of the pieces of this slab's blocks, kept beyond the transfer that needed them first: a
// prefix that is cached is handed over again and again, and its bytes need to be read for that only
// once.
//
// What makes an entry valid is the hash of the block's content (common/block_hash.h): all tokens up
// to the block's end, the model, the layout and the tenant. A block that was taken for something
// else has another hash, and its entry is not found; one that holds the same tokens again holds the
// same bytes, for KV does not depend on how it was computed (docs/architecture.md, "Exact"). Should
// that ever fail, the target finds a mismatch, and Forget lets no block fail twice.
//
// One entry a piece, allocated when it is made. Not thread-safe.

#include <cstdint>
#include <optional>
#include <vector>

#include "common/block_hash.h"

namespace baton::kv_transfer {

class SourceChecksums {
 public:
  explicit SourceChecksums(int32_t slab_pieces) : kept_(static_cast<size_t>(slab_pieces)) {}

  // Of the piece while its block holds `content`; empty when it is not known.
  std::optional<uint64_t> Find(int32_t piece, const BlockHash& content) const;
  // `checksum` is that of the piece's bytes, which are complete.
  void Keep(int32_t piece, const BlockHash& content, uint64_t checksum);
  void Forget(int32_t piece) { kept_[static_cast<size_t>(piece)].known = false; }

 private:
  struct Entry {
    BlockHash content{};
    uint64_t checksum = 0;
    bool known = false;
  };
  std::vector<Entry> kept_;
};

}  // namespace baton::kv_transfer
