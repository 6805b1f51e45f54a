#include "kernels/cuda/staging.h"

#include <cstring>

#include "common/status_macros.h"
#include "kernels/cuda/runtime.h"

namespace baton::kernels::cuda {

Staging::~Staging() {
  if (memory_ != nullptr) FreePinned(memory_);
}

absl::Status Staging::Send(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  if (bytes > kBytes) return CopyToDevice(to, from, bytes);
  if (memory_ == nullptr) {
    BATON_ASSIGN_OR_RETURN(void* memory, AllocatePinned(kBytes));
    memory_ = static_cast<char*>(memory);
  }
  if (used_ + bytes > kBytes) {
    BATON_RETURN_IF_ERROR(Synchronize());
    used_ = 0;
  }
  char* const staged = memory_ + used_;
  used_ += (bytes + 15) / 16 * 16;
  std::memcpy(staged, from, static_cast<size_t>(bytes));
  return StartCopyToDevice(to, staged, bytes);
}

}  // namespace baton::kernels::cuda
