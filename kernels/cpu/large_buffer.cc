#include "kernels/cpu/large_buffer.h"

#include <sys/mman.h>

#include <cstring>

#include "common/status_macros.h"

namespace baton::kernels {

LargeBuffer::LargeBuffer(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, rounded)));
  BATON_CHECK(data_ != nullptr || rounded == 0, "memory for weights and activations");
  if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);  // best effort
  if (rounded > 0) std::memset(data_.get(), 0, rounded);
  bytes_ = rounded;
}

}  // namespace baton::kernels
