#include "engine/host_slab.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace baton::engine {

absl::StatusOr<HostSlab> HostSlab::Allocate(int64_t bytes) {
  if (bytes < 1) {
    return absl::InvalidArgumentError(fmt::format("a slab cannot have {} bytes", bytes));
  }
  void* const memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot map a slab of {} bytes: {}", bytes, std::strerror(errno)));
  }
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a hint: refusal costs only speed
  HostSlab slab;
  slab.bytes_ = {static_cast<std::byte*>(memory), static_cast<size_t>(bytes)};
  return slab;
}

HostSlab::HostSlab(HostSlab&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

HostSlab& HostSlab::operator=(HostSlab&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

HostSlab::~HostSlab() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace baton::engine
