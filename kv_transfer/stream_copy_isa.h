#pragma once

// StreamCopy (stream_copy.h) for one instruction set each, which the CPU must have: its
// preconditions hold, and `to` and `from` are of `bytes`.

#include <cstddef>
#include <cstdint>

#ifdef __x86_64__
namespace baton::kv_transfer::avx2 {
uint64_t StreamCopy(char* to, const char* from, size_t bytes, bool checksum);
}
namespace baton::kv_transfer::avx512 {
uint64_t StreamCopy(char* to, const char* from, size_t bytes, bool checksum);
}
#endif
