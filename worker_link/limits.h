#pragma once

// Bounds that both ends of the link keep.

#include <cstddef>

namespace baton::worker_link {

// More than this much waiting to be written means that the peer does not read.
inline constexpr size_t kMaxWaitingBytes = size_t{64} << 20;
// Largest message that either end takes.
inline constexpr int kMaxMessageBytes = 64 << 20;

// Most streams that one worker serves.
inline constexpr size_t kMaxRouters = 256;

// HTTP/2 pings find a peer that is stopped or unreachable within twelve seconds; one that dies
// says so at once. It is also how long TCP tries again before the connection counts as lost, at
// intervals that double: the network may be gone for half of it.
inline constexpr int kKeepaliveTimeMs = 2000;
inline constexpr int kKeepaliveTimeoutMs = 10'000;

}  // namespace baton::worker_link
