#pragma once

// A KV slab in memory that other processes of this machine can map for reading.
//
// The owner keeps it as an unnamed memory file, so nothing is left behind however the process ends,
// and /dev/shm's size does not matter. It is sealed: it cannot shrink under a reader, and only the
// owner's mapping can write. Readers of the same user open it through /proc/<pid>/fd.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "kv_transfer/peer_address.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

// Boot id and pid namespace: where a process id names the same process.
const std::string& ThisHost();

class SharedSlab {
 public:
  // All memory is taken now. ResourceExhausted when the machine has not got it.
  static absl::StatusOr<std::unique_ptr<SharedSlab>> Create(size_t bytes, uint64_t incarnation);
  ~SharedSlab();
  SharedSlab(const SharedSlab&) = delete;
  SharedSlab& operator=(const SharedSlab&) = delete;

  std::span<std::byte> bytes() const { return {data_, bytes_}; }
  SlabFile file() const;

 private:
  SharedSlab(int fd, std::byte* data, size_t bytes) : fd_(fd), data_(data), bytes_(bytes) {}
  const int fd_;
  std::byte* const data_;
  const size_t bytes_;
};

// Maps the slab of the process with this address, which may be this process, too.
// FailedPrecondition with the reason: another machine or container, another user, not that process
// any more.
absl::StatusOr<std::shared_ptr<const PeerSlab>> MapPeerSlab(const PeerAddress& address);

}  // namespace baton::kv_transfer
