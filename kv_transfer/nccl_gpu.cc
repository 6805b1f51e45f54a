// Gpu and GpuLane over CUDA and NCCL.
//
// NCCL is loaded when the first GPU is opened, not linked: one program then runs on machines with
// and without it, and says what is missing. The CUDA runtime is linked in, and finds the driver by
// itself in the same way.
//
// Communicators do not block (config.blocking = 0): each call may go on in NCCL's own thread, and
// nothing may be put behind it on its stream before ncclCommGetAsyncError says that it is through.

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <nccl.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "kv_transfer/gpu_lane.h"
#include "kv_transfer/shared_slab.h"

namespace baton::kv_transfer {
namespace {

static_assert(sizeof(ncclUniqueId) <= kMaxLaneIdBytes);
constexpr size_t kStagingBytes = GpuLane::kSlots * GpuLane::kSlotBytes;
constexpr int kReceiverRank = 0, kSenderRank = 1;
// Communicators that do not block came with 2.14; with 2.18 their configuration became extensible.
constexpr int kOldestNccl = NCCL_VERSION(2, 18, 1);

// ---- libraries ----

struct Nccl {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclGetLastError) get_last_error;
  int version = 0;

  absl::Status Error(ncclResult_t result, const char* what, ncclComm_t comm = nullptr) const {
    return absl::UnavailableError(
        fmt::format("NCCL: {}: {}: {}", what, get_error_string(result), get_last_error(comm)));
  }
};

absl::StatusOr<Nccl> LoadNccl() {
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  // Beside the one that was built with: toolkits are often outside of the loader's paths.
  if (library == nullptr) library = dlopen(BATON_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::UnavailableError(fmt::format("NCCL cannot be loaded: {}", dlerror()));
  }
  Nccl nccl{};
  bool complete = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    complete = complete && function != nullptr;
  };
  find(nccl.get_version, "ncclGetVersion");
  find(nccl.get_unique_id, "ncclGetUniqueId");
  find(nccl.comm_init_rank_config, "ncclCommInitRankConfig");
  find(nccl.comm_get_async_error, "ncclCommGetAsyncError");
  find(nccl.comm_abort, "ncclCommAbort");
  find(nccl.send, "ncclSend");
  find(nccl.recv, "ncclRecv");
  find(nccl.get_error_string, "ncclGetErrorString");
  find(nccl.get_last_error, "ncclGetLastError");
  const bool counted = complete && nccl.get_version(&nccl.version) == ncclSuccess;
  if (!counted || nccl.version < kOldestNccl) {
    return absl::UnavailableError(
        fmt::format("the NCCL that was loaded has version code {} (0: unknown), at least {} is "
                    "needed",
                    nccl.version, kOldestNccl));
  }
  return nccl;
}

const absl::StatusOr<Nccl>& NcclOfThisProcess() {
  static const absl::StatusOr<Nccl> nccl = LoadNccl();
  return nccl;
}

absl::Status Cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("CUDA: {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}

std::string VisibleDevices() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible == nullptr ? "" : fmt::format(" with CUDA_VISIBLE_DEVICES={}", visible);
}

absl::Status CheckIndex(int32_t index) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    return absl::UnavailableError(
        "no CUDA driver is installed here (no usable libcuda.so.1), so NCCL has no GPU");
  }
  int gpus = 0;
  const cudaError_t error = cudaGetDeviceCount(&gpus);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && gpus == 0)) {
    return absl::UnavailableError(
        fmt::format("there is a CUDA driver, but it finds no GPU{}", VisibleDevices()));
  }
  BATON_RETURN_IF_ERROR(Cuda(error, "counting GPUs"));
  if (index >= 0 && index < gpus) return absl::OkStatus();
  return absl::UnavailableError(fmt::format(
      "GPU {} was asked for, but {} found{}: they are counted from 0, and each worker needs its "
      "own",
      index, gpus == 1 ? "1 GPU is" : fmt::format("{} GPUs are", gpus), VisibleDevices()));
}

// ---- one GPU ----

// Of one lane. Kept for the next one when that ends: giving memory back waits for all of the GPU.
struct Staging {
  std::byte* device = nullptr;
  std::byte* pinned = nullptr;
};

class NcclGpu final : public Gpu {
 public:
  NcclGpu(const Nccl& nccl, GpuAddress address) : nccl_(nccl), address_(std::move(address)) {}
  ~NcclGpu() override {
    Use().IgnoreError();
    for (const Staging& staging : spare_) Free(staging);
  }

  const GpuAddress& address() const override { return address_; }
  absl::StatusOr<std::string> NewLaneId() override {
    BATON_RETURN_IF_ERROR(Use());
    ncclUniqueId id;
    if (const ncclResult_t result = nccl_.get_unique_id(&id); result != ncclSuccess) {
      return nccl_.Error(result, "ncclGetUniqueId");
    }
    return std::string(id.internal, sizeof id.internal);
  }
  absl::StatusOr<std::unique_ptr<GpuLane>> OpenLane(const std::string& id, bool sends) override;

  const Nccl& nccl() const { return nccl_; }
  // The calling thread's CUDA calls are for this GPU from now on.
  absl::Status Use() const { return Cuda(cudaSetDevice(address_.index), "cudaSetDevice"); }

  absl::StatusOr<Staging> TakeStaging() {
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        const Staging staging = spare_.back();
        spare_.pop_back();
        return staging;
      }
    }
    void* device = nullptr;
    BATON_RETURN_IF_ERROR(Cuda(cudaMalloc(&device, kStagingBytes), "cudaMalloc"));
    void* pinned = nullptr;
    const absl::Status status =
        Cuda(cudaHostAlloc(&pinned, kStagingBytes, cudaHostAllocDefault), "cudaHostAlloc");
    const Staging staging{static_cast<std::byte*>(device), static_cast<std::byte*>(pinned)};
    if (status.ok()) return staging;
    Free(staging);
    return status;
  }
  void KeepStaging(const Staging& staging) {
    const std::lock_guard lock(mutex_);
    spare_.push_back(staging);
  }

 private:
  static void Free(const Staging& staging) {
    cudaFree(staging.device);
    cudaFreeHost(staging.pinned);
  }

  const Nccl& nccl_;
  const GpuAddress address_;
  std::mutex mutex_;
  std::vector<Staging> spare_;
};

// ---- one end of a lane ----

class NcclLane final : public GpuLane {
 public:
  NcclLane(NcclGpu& gpu, bool sends) : gpu_(gpu), sends_(sends) {}
  ~NcclLane() override;
  absl::Status Start(const std::string& id);

  void Send(std::vector<std::span<const std::byte>> parts) override {
    waiting_.push_back({.parts = std::move(parts)});
  }
  void Receive(size_t bytes) override { waiting_.push_back({.parts = {}, .bytes = bytes}); }
  std::span<const std::byte> Received(uint64_t piece) const override {
    return {Pinned(piece), bytes_[piece % kSlots]};
  }
  absl::StatusOr<Progress> Poll() override;

 private:
  struct Piece {
    std::vector<std::span<const std::byte>> parts;  // of a send
    size_t bytes = 0;                               // of a receive
  };
  std::byte* Device(uint64_t piece) const { return staging_.device + piece % kSlots * kSlotBytes; }
  std::byte* Pinned(uint64_t piece) const { return staging_.pinned + piece % kSlots * kSlotBytes; }
  absl::Status PostSend(const Piece& piece);
  absl::Status CopyIn(std::span<const std::byte> part, size_t at);
  absl::Status PostReceive(const Piece& piece);
  absl::Status Posting(ncclResult_t result, const char* what);
  // What is to follow the piece's transfer on the streams.
  absl::Status Posted();
  absl::Status FindDone();

  NcclGpu& gpu_;
  const bool sends_;
  ncclComm_t comm_ = nullptr;
  // One copies between host and GPU, the other sends or receives: pieces overlap.
  cudaStream_t copies_ = nullptr, transfers_ = nullptr;
  std::array<cudaEvent_t, kSlots> first_half_{}, ends_{};
  Staging staging_;
  std::array<size_t, kSlots> bytes_{};
  std::deque<Piece> waiting_;
  bool posting_ = false;  // NCCL is still at the send or receive of piece progress_.posted
  Progress progress_;
};

absl::StatusOr<std::unique_ptr<GpuLane>> NcclGpu::OpenLane(const std::string& id, bool sends) {
  if (id.size() != sizeof(ncclUniqueId)) {
    return absl::InvalidArgumentError(
        fmt::format("an NCCL id of {} bytes, it has {}", id.size(), sizeof(ncclUniqueId)));
  }
  auto lane = std::make_unique<NcclLane>(*this, sends);
  BATON_RETURN_IF_ERROR(lane->Start(id));
  return lane;
}

absl::Status NcclLane::Start(const std::string& id) {
  BATON_RETURN_IF_ERROR(gpu_.Use());
  BATON_ASSIGN_OR_RETURN(staging_, gpu_.TakeStaging());
  for (cudaStream_t* const stream : {&copies_, &transfers_}) {
    BATON_RETURN_IF_ERROR(
        Cuda(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  }
  for (std::array<cudaEvent_t, kSlots>* const events : {&first_half_, &ends_}) {
    for (cudaEvent_t& event : *events) {
      BATON_RETURN_IF_ERROR(
          Cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate"));
    }
  }
  ncclUniqueId unique_id;
  std::memcpy(unique_id.internal, id.data(), sizeof unique_id.internal);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = gpu_.nccl().comm_init_rank_config(
      &comm_, /*nranks=*/2, unique_id, sends_ ? kSenderRank : kReceiverRank, &config);
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return gpu_.nccl().Error(result, "ncclCommInitRankConfig", comm_);
}

NcclLane::~NcclLane() {
  bool quiet = gpu_.Use().ok();
  if (comm_ != nullptr) gpu_.nccl().comm_abort(comm_);
  for (cudaStream_t const stream : {copies_, transfers_}) {
    if (stream == nullptr) continue;
    quiet = quiet && cudaStreamSynchronize(stream) == cudaSuccess;
    cudaStreamDestroy(stream);
  }
  for (const auto& events : {first_half_, ends_}) {
    for (cudaEvent_t const event : events) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
  // A GPU in error may go on writing: the memory is then nobody's.
  if (quiet && staging_.device != nullptr) gpu_.KeepStaging(staging_);
}

absl::StatusOr<GpuLane::Progress> NcclLane::Poll() {
  BATON_RETURN_IF_ERROR(gpu_.Use());
  ncclResult_t state = ncclSuccess;
  ncclResult_t result = gpu_.nccl().comm_get_async_error(comm_, &state);
  if (result == ncclSuccess) result = state;
  if (result != ncclSuccess && result != ncclInProgress) {
    return gpu_.nccl().Error(result, progress_.connected ? "the lane" : "connecting", comm_);
  }
  if (result == ncclSuccess) {
    progress_.connected = true;
    if (std::exchange(posting_, false)) BATON_RETURN_IF_ERROR(Posted());
  }
  while (progress_.connected && !posting_ && !waiting_.empty()) {
    const Piece piece = std::move(waiting_.front());
    waiting_.pop_front();
    BATON_RETURN_IF_ERROR(sends_ ? PostSend(piece) : PostReceive(piece));
  }
  BATON_RETURN_IF_ERROR(FindDone());
  return progress_;
}

absl::Status NcclLane::PostSend(const Piece& piece) {
  const uint64_t number = progress_.posted;
  size_t bytes = 0;
  for (const std::span<const std::byte> part : piece.parts) {
    BATON_RETURN_IF_ERROR(CopyIn(part, bytes));
    bytes += part.size();
  }
  bytes_[number % kSlots] = bytes;
  cudaEvent_t const copied = first_half_[number % kSlots];
  BATON_RETURN_IF_ERROR(Cuda(cudaEventRecord(copied, copies_), "cudaEventRecord"));
  BATON_RETURN_IF_ERROR(Cuda(cudaStreamWaitEvent(transfers_, copied, 0), "cudaStreamWaitEvent"));
  return Posting(
      gpu_.nccl().send(Device(number), bytes, ncclUint8, kReceiverRank, comm_, transfers_),
      "ncclSend");
}

// To this offset of the next piece.
absl::Status NcclLane::CopyIn(std::span<const std::byte> part, size_t at) {
  const std::byte* from = part.data();
  cudaPointerAttributes attributes{};
  BATON_RETURN_IF_ERROR(
      Cuda(cudaPointerGetAttributes(&attributes, from), "cudaPointerGetAttributes"));
  if (attributes.type == cudaMemoryTypeUnregistered) {
    // Ordinary host memory: CUDA would copy it while this thread waits.
    std::byte* const pinned = Pinned(progress_.posted) + at;
    std::memcpy(pinned, from, part.size());
    from = pinned;
  }
  return Cuda(
      cudaMemcpyAsync(Device(progress_.posted) + at, from, part.size(), cudaMemcpyDefault, copies_),
      "copying to the GPU");
}

absl::Status NcclLane::PostReceive(const Piece& piece) {
  const uint64_t number = progress_.posted;
  bytes_[number % kSlots] = piece.bytes;
  return Posting(
      gpu_.nccl().recv(Device(number), piece.bytes, ncclUint8, kSenderRank, comm_, transfers_),
      "ncclRecv");
}

absl::Status NcclLane::Posting(ncclResult_t result, const char* what) {
  if (result == ncclInProgress) {
    posting_ = true;
    return absl::OkStatus();
  }
  if (result != ncclSuccess) return gpu_.nccl().Error(result, what, comm_);
  return Posted();
}

absl::Status NcclLane::Posted() {
  const uint64_t number = progress_.posted++;
  cudaEvent_t const end = ends_[number % kSlots];
  if (sends_) return Cuda(cudaEventRecord(end, transfers_), "cudaEventRecord");
  cudaEvent_t const received = first_half_[number % kSlots];
  BATON_RETURN_IF_ERROR(Cuda(cudaEventRecord(received, transfers_), "cudaEventRecord"));
  BATON_RETURN_IF_ERROR(Cuda(cudaStreamWaitEvent(copies_, received, 0), "cudaStreamWaitEvent"));
  BATON_RETURN_IF_ERROR(
      Cuda(cudaMemcpyAsync(Pinned(number), Device(number), bytes_[number % kSlots],
                           cudaMemcpyDeviceToHost, copies_),
           "copying from the GPU"));
  return Cuda(cudaEventRecord(end, copies_), "cudaEventRecord");
}

absl::Status NcclLane::FindDone() {
  while (progress_.done < progress_.posted) {
    const cudaError_t error = cudaEventQuery(ends_[progress_.done % kSlots]);
    if (error == cudaErrorNotReady) break;
    BATON_RETURN_IF_ERROR(Cuda(error, "a piece on its way"));
    ++progress_.done;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(int32_t index) {
  const absl::StatusOr<Nccl>& nccl = NcclOfThisProcess();
  if (!nccl.ok()) return nccl.status();
  BATON_RETURN_IF_ERROR(CheckIndex(index));
  BATON_RETURN_IF_ERROR(Cuda(cudaSetDevice(index), "cudaSetDevice"));
  cudaDeviceProp properties{};
  BATON_RETURN_IF_ERROR(
      Cuda(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
  std::array<char, 32> bus_id{};
  BATON_RETURN_IF_ERROR(
      Cuda(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), index),
           "cudaDeviceGetPCIBusId"));
  return std::make_unique<NcclGpu>(*nccl,
                                   GpuAddress{.machine = ThisHost().substr(0, ThisHost().find(' ')),
                                              .bus_id = bus_id.data(),
                                              .name = properties.name,
                                              .index = index,
                                              .nccl_version = nccl->version});
}

}  // namespace baton::kv_transfer
