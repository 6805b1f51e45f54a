#include "kernels/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "common/status_macros.h"

namespace baton::kernels::cuda {
namespace {

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      fmt::format("{}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}

}  // namespace

absl::Status UseDevice(int32_t index) {
  thread_local int32_t used = -1;
  if (used == index) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(ToStatus(cudaSetDevice(index), "a GPU could not be opened"));
  used = index;
  return absl::OkStatus();
}

absl::StatusOr<DeviceInfo> OpenDevice(int32_t index) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::FailedPreconditionError(
        fmt::format("no GPU can be used: {}", cudaGetErrorString(error)));
  }
  if (index < 0 || index >= count) {
    return absl::FailedPreconditionError(
        fmt::format("there is no GPU {}: the driver shows {}", index, count));
  }
  BATON_RETURN_IF_ERROR(UseDevice(index));
  cudaDeviceProp properties;
  BATON_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, index), "a GPU did not say what it is"));
  DeviceInfo info;
  info.capability = properties.major * 10 + properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.shared_bytes = static_cast<int32_t>(properties.sharedMemPerBlockOptin);
  info.name = fmt::format("{}, compute capability {}.{}, {} MiB", properties.name, properties.major,
                          properties.minor, properties.totalGlobalMem >> 20);
  return info;
}

absl::StatusOr<void*> Allocate(int64_t bytes) {
  void* memory = nullptr;
  if (const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    cudaGetLastError();  // this one is told here
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(
        fmt::format("the GPU has no {} bytes ({} of {} are free): {}", bytes, free, total,
                    cudaGetErrorString(error)));
  }
  BATON_RETURN_IF_ERROR(
      ToStatus(cudaMemset(memory, 0, static_cast<size_t>(bytes)), "zeroing GPU memory"));
  return memory;
}

void Free(void* memory) { cudaFree(memory); }

absl::StatusOr<void*> AllocatePinned(int64_t bytes) {
  void* memory = nullptr;
  BATON_RETURN_IF_ERROR(
      ToStatus(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "pinned memory of the host"));
  return memory;
}

void FreePinned(void* memory) { cudaFreeHost(memory); }

absl::Status Pin(void* memory, int64_t bytes) {
  const cudaError_t error =
      cudaHostRegister(memory, static_cast<size_t>(bytes), cudaHostRegisterDefault);
  if (error != cudaSuccess) cudaGetLastError();  // this one is told here
  return ToStatus(error, "pinning memory of the host");
}

void Unpin(void* memory) { cudaHostUnregister(memory); }

absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) {
  return ToStatus(cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
                  "copying to the GPU");
}

absl::Status CopyToHost(void* to, const void* from, int64_t bytes) {
  return ToStatus(cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost),
                  "copying from the GPU");
}

absl::Status StartCopyToDevice(void* to, const void* pinned, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(to, pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
                  "copying to the GPU");
}

absl::Status StartCopyToHost(void* to, const void* from, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost),
                  "copying from the GPU");
}

absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice),
                  "copying on the GPU");
}

absl::Status Synchronize() { return ToStatus(cudaDeviceSynchronize(), "waiting for the GPU"); }

absl::Status LaunchError() { return ToStatus(cudaGetLastError(), "launching on the GPU"); }

}  // namespace baton::kernels::cuda
