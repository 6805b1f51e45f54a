#include "kernels/cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/kernels/emulated/device.h"

namespace baton::kernels::cuda {
namespace {

struct Copy {
  void* to;
  const void* from;
  int64_t bytes;
};
std::vector<Copy> waiting;

}  // namespace

namespace emulated {

void Fetch() {
  for (const Copy& copy : waiting) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
  waiting.clear();
}

}  // namespace emulated

using emulated::Fetch;

// Few multiprocessors, so that small tests have products and attentions that are split and such
// that are not.
absl::StatusOr<DeviceInfo> OpenDevice(int32_t index) {
  if (index != 0) return absl::FailedPreconditionError("one device is emulated");
  return DeviceInfo{"emulated on the CPU", 90, 4, 232448};
}

// Zeroed, as the device's.
absl::StatusOr<void*> Allocate(int64_t bytes) {
  void* const memory = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return memory;
}
void Free(void* memory) {
  Fetch();  // as the device waits for what it does
  std::free(memory);
}

absl::StatusOr<void*> AllocatePinned(int64_t bytes) { return Allocate(bytes); }
void FreePinned(void* memory) { Free(memory); }
absl::Status Pin(void*, int64_t) { return absl::OkStatus(); }
void Unpin(void*) {}

absl::Status UseDevice(int32_t) { return absl::OkStatus(); }

absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) {
  Fetch();
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return absl::OkStatus();
}
absl::Status CopyToHost(void* to, const void* from, int64_t bytes) {
  return CopyToDevice(to, from, bytes);
}
absl::Status StartCopyToHost(void* to, const void* from, int64_t bytes) {
  return CopyToDevice(to, from, bytes);
}
absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes) {
  return CopyToDevice(to, from, bytes);
}
absl::Status StartCopyToDevice(void* to, const void* pinned, int64_t bytes) {
  waiting.push_back({to, pinned, bytes});
  return absl::OkStatus();
}
absl::Status Synchronize() {
  Fetch();
  return absl::OkStatus();
}
absl::Status LaunchError() { return absl::OkStatus(); }

}  // namespace baton::kernels::cuda
