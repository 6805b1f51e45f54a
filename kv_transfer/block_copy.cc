#include "kv_transfer/block_copy.h"

// The library chooses the widest vectors that this CPU has; elsewhere than on x86 there is no
// choice.
#if __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include "common/status_macros.h"
#include "kv_transfer/stream_copy.h"

namespace baton::kv_transfer {
namespace {

constexpr size_t kLineBytes = 64;
constexpr size_t kPieceBytes = 4'096;  // 2 KiB and 8 KiB are a quarter slower

// Copies one piece past the caches. Both are aligned to lines, and `bytes` is whole lines.
void StreamOut(std::byte* to, const std::byte* from, size_t bytes) {
#ifdef __SSE2__
  for (size_t at = 0; at < bytes; at += sizeof(__m128i)) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_load_si128(reinterpret_cast<const __m128i*>(from + at)));
  }
#else
  std::memcpy(to, from, bytes);
#endif
}

// Makes streamed stores visible before whatever tells others about them.
void StreamFence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace

struct BlockCopier::State {
  alignas(kLineBytes) std::byte piece[kPieceBytes];
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash{XXH3_createState(),
                                                                &XXH3_freeState};
};

BlockCopier::BlockCopier(bool checksums)
    : checksums_(checksums), state_(std::make_unique<State>()) {
  BATON_CHECK(state_->hash != nullptr, "half a kilobyte can be allocated");
}
BlockCopier::~BlockCopier() = default;

uint64_t BlockCopier::Copy(std::span<std::byte> to, std::span<const std::byte> from) {
  BATON_CHECK(to.size() == from.size(), "a block is copied to a block");
  if (CanStreamCopy(to, from)) return StreamCopy(to, from, checksums_);
  const bool aligned = reinterpret_cast<uintptr_t>(to.data()) % kLineBytes == 0;
  XXH3_64bits_reset(state_->hash.get());
  for (size_t at = 0; at < from.size(); at += kPieceBytes) {
    const size_t bytes = std::min(kPieceBytes, from.size() - at);
    std::memcpy(state_->piece, from.data() + at, bytes);
    if (checksums_) XXH3_64bits_update(state_->hash.get(), state_->piece, bytes);
    const size_t lines = aligned ? bytes / kLineBytes * kLineBytes : 0;
    StreamOut(to.data() + at, state_->piece, lines);
    std::memcpy(to.data() + at + lines, state_->piece + lines, bytes - lines);
  }
  StreamFence();
  return checksums_ ? XXH3_64bits_digest(state_->hash.get()) : 0;
}

uint64_t BlockCopier::Checksum(std::span<const std::byte> block) const {
  return checksums_ ? XXH3_64bits(block.data(), block.size()) : 0;
}

}  // namespace baton::kv_transfer
