#include "kv_transfer/source_checksums.h"

namespace baton::kv_transfer {

std::optional<uint64_t> SourceChecksums::Find(int32_t piece, const BlockHash& content) const {
  const Entry& entry = kept_[static_cast<size_t>(piece)];
  if (!entry.known || entry.content != content) return std::nullopt;
  return entry.checksum;
}

void SourceChecksums::Keep(int32_t piece, const BlockHash& content, uint64_t checksum) {
  kept_[static_cast<size_t>(piece)] = {content, checksum, true};
}

}  // namespace baton::kv_transfer
