#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace baton::engine {

// Zeroed host memory for a KV slab: page aligned, on huge pages where the system grants them, and
// taken from the system only as it is touched. Movable.
class HostSlab {
 public:
  HostSlab() = default;
  // InvalidArgument for bytes < 1, ResourceExhausted when the system has no such address range.
  static absl::StatusOr<HostSlab> Allocate(int64_t bytes);
  HostSlab(HostSlab&& other) noexcept;
  HostSlab& operator=(HostSlab&& other) noexcept;
  ~HostSlab();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace baton::engine
