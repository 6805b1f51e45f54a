// Stands in for nccl_gpu.cc where CUDA or NCCL was not found, or not looked for, at build time.

#include "kv_transfer/gpu_lane.h"

namespace baton::kv_transfer {

absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(int32_t) {
  return absl::UnimplementedError(
      "Baton was built without NCCL (install the CUDA toolkit and NCCL, then cmake --preset cuda)");
}

}  // namespace baton::kv_transfer
