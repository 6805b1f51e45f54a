// XXH3 of long inputs (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md), with a store beside
// each load. The library's own loops only read. Its secret and its finish are taken from its
// header.

#include "kv_transfer/stream_copy.h"

#include "common/status_macros.h"
#include "kv_transfer/stream_copy_isa.h"

namespace baton::kv_transfer {

#ifdef __x86_64__
namespace {

constexpr size_t kLineBytes = 64;
constexpr size_t kLeastBytes = 256;  // XXH3 has other ways for up to 240

}  // namespace

bool CanStreamCopy(std::span<const std::byte> to, std::span<const std::byte> from) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  return has_avx2 && to.size() == from.size() && to.size() >= kLeastBytes &&
         to.size() % kLineBytes == 0 && reinterpret_cast<uintptr_t>(to.data()) % kLineBytes == 0;
}

uint64_t StreamCopy(std::span<std::byte> to, std::span<const std::byte> from, bool checksum) {
  BATON_CHECK(CanStreamCopy(to, from), "the caller asked");
  static const auto copy =
      __builtin_cpu_supports("avx512f") ? &avx512::StreamCopy : &avx2::StreamCopy;
  return copy(reinterpret_cast<char*>(to.data()), reinterpret_cast<const char*>(from.data()),
              from.size(), checksum);
}
#else
bool CanStreamCopy(std::span<const std::byte>, std::span<const std::byte>) { return false; }

uint64_t StreamCopy(std::span<std::byte>, std::span<const std::byte>, bool) {
  CheckFailed(__FILE__, __LINE__, "CanStreamCopy", "the caller asked");
}
#endif

}  // namespace baton::kv_transfer
