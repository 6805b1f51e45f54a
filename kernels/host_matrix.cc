#include "kernels/host_matrix.h"

#include <fmt/format.h>

namespace baton::kernels {

absl::Status CheckHostMatrix(const HostMatrix& host) {
  constexpr int64_t kMaxSide = int64_t{1} << 28;
  const DTypeTraits& traits = Traits(host.dtype);
  if (host.rows < 1 || host.cols < 1 || host.rows > kMaxSide || host.cols > kMaxSide) {
    return absl::InvalidArgumentError(fmt::format("a matrix of {} x {} is outside 1..{} on a side",
                                                  host.rows, host.cols, kMaxSide));
  }
  if (host.cols % traits.block_elements != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} columns are not a multiple of {}'s block of {}", host.cols, traits.name,
                    traits.block_elements));
  }
  const int64_t bytes = host.rows * DTypeBytes(host.dtype, host.cols);
  if (static_cast<int64_t>(host.data.size()) != bytes) {
    return absl::InvalidArgumentError(fmt::format("a {} matrix of {} x {} is {} bytes, not {}",
                                                  traits.name, host.rows, host.cols, bytes,
                                                  host.data.size()));
  }
  return absl::OkStatus();
}

}  // namespace baton::kernels
