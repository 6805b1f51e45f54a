#pragma once

// What the backend needs of a device beside its kernels. The one of the CUDA runtime is in
// runtime.cc; tests have one that computes on the CPU.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

struct DeviceInfo {
  std::string name;        // "NVIDIA H200, compute capability 9.0, 143771 MiB"
  int32_t capability = 0;  // 90
  int32_t multiprocessors = 0;
  int32_t shared_bytes = 0;  // most of a block
};

// Makes the device, which was opened, the calling thread's. Cheap where it is.
absl::Status UseDevice(int32_t index);

// Makes the device the calling thread's, and says what it is. FailedPrecondition where there is no
// driver or no such device.
absl::StatusOr<DeviceInfo> OpenDevice(int32_t index);

// Zeroed memory. ResourceExhausted with what is free.
absl::StatusOr<void*> Allocate(int64_t bytes);
void Free(void* memory);

// The host's memory that copies in the stream read and write directly.
absl::StatusOr<void*> AllocatePinned(int64_t bytes);
void FreePinned(void* memory);
// Makes memory of the host pinned, and what it was before. A failure changes nothing.
absl::Status Pin(void* memory, int64_t bytes);
void Unpin(void* memory);

// In the order of the default stream. The host's side may be reused when they return.
absl::Status CopyToDevice(void* to, const void* from, int64_t bytes);
absl::Status CopyToHost(void* to, const void* from, int64_t bytes);
// Start; the host's side, pinned for the first, is free or ready after Synchronize.
absl::Status StartCopyToDevice(void* to, const void* pinned, int64_t bytes);
absl::Status StartCopyToHost(void* to, const void* from, int64_t bytes);
absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes);
absl::Status Synchronize();
// The first error of the kernels launched since the last call.
absl::Status LaunchError();

}  // namespace baton::kernels::cuda
