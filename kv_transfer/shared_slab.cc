#include "kv_transfer/shared_slab.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

namespace baton::kv_transfer {
namespace {

// Readers check these; without them a slab could shrink, and reading it would be a SIGBUS.
constexpr int kNeededSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr uint64_t kTrailerMagic = 0x42414C534E544142;  // "BATNSLAB"

// Lies in the page behind the slab, and says whose it is.
struct Trailer {
  uint64_t magic = kTrailerMagic;
  uint64_t incarnation = 0;
};

size_t TrailerOffset(size_t slab_bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (slab_bytes + page - 1) / page * page;
}
size_t FileBytes(size_t slab_bytes) { return TrailerOffset(slab_bytes) + sizeof(Trailer); }

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class MappedPeerSlab final : public PeerSlab {
 public:
  MappedPeerSlab(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  ~MappedPeerSlab() override { munmap(data_, FileBytes(bytes_)); }
  MappedPeerSlab(const MappedPeerSlab&) = delete;
  MappedPeerSlab& operator=(const MappedPeerSlab&) = delete;
  std::span<const std::byte> bytes() const override { return {data_, bytes_}; }
  uint64_t incarnation() const {
    Trailer trailer;
    std::memcpy(&trailer, data_ + TrailerOffset(bytes_), sizeof trailer);
    return trailer.magic == kTrailerMagic ? trailer.incarnation : 0;
  }

 private:
  std::byte* const data_;
  const size_t bytes_;
};

// What this process can still take: of the machine, and of its container where there is one.
int64_t AvailableBytes() {
  int64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    if (key == "MemAvailable:" && meminfo >> available) break;
  }
  available *= 1'024;
  int64_t most = 0, used = 0;  // stays 0 where the file says "max"
  std::ifstream("/sys/fs/cgroup/memory.max") >> most;
  std::ifstream("/sys/fs/cgroup/memory.current") >> used;
  return most > 0 ? std::min(available, most - used) : available;
}

absl::Status NoMemory(size_t bytes, std::string_view what) {
  return absl::ResourceExhaustedError(fmt::format(
      "cannot have {} bytes of shared memory for KV: {}: {}", bytes, what, std::strerror(errno)));
}

absl::Status CannotMap(const PeerAddress& address, std::string_view why) {
  return absl::FailedPreconditionError(
      fmt::format("the KV slab of '{}' cannot be mapped: {}", address.name, why));
}

}  // namespace

const std::string& ThisHost() {
  static const std::string host = [] {
    std::string boot_id;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id;
    std::array<char, 64> pid_namespace{};
    const ssize_t length =
        readlink("/proc/self/ns/pid", pid_namespace.data(), pid_namespace.size());
    return fmt::format("{} {}", boot_id,
                       std::string_view(pid_namespace.data(), length > 0 ? length : 0));
  }();
  return host;
}

absl::StatusOr<std::unique_ptr<SharedSlab>> SharedSlab::Create(size_t bytes, uint64_t incarnation) {
  // Asked first, for the kernel would start killing processes before it refused.
  if (const int64_t available = AvailableBytes(); static_cast<int64_t>(bytes) > available) {
    return absl::ResourceExhaustedError(fmt::format(
        "cannot have {} bytes of shared memory for KV: {} are available", bytes, available));
  }
  const size_t file_bytes = FileBytes(bytes);
  Fd fd(memfd_create("baton-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) return NoMemory(bytes, "memfd_create");
  if (fchmod(fd.get(), 0600) != 0) return NoMemory(bytes, "fchmod");
  // Takes every page: better to fail here than to die of a page fault in the middle of serving.
  if (const int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(file_bytes)); error != 0) {
    errno = error;
    return NoMemory(bytes, "posix_fallocate");
  }
  void* const data =
      mmap(nullptr, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (data == MAP_FAILED) return NoMemory(bytes, "mmap");
  auto* const begin = static_cast<std::byte*>(data);
  const Trailer trailer{.incarnation = incarnation};
  std::memcpy(begin + TrailerOffset(bytes), &trailer, sizeof trailer);
  // FUTURE_WRITE is younger (Linux 5.1) and only a second lock: readers open for reading anyway.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | kNeededSeals) != 0 &&
      fcntl(fd.get(), F_ADD_SEALS, kNeededSeals) != 0) {
    const absl::Status status = NoMemory(bytes, "F_ADD_SEALS");
    munmap(data, file_bytes);
    return status;
  }
  return std::unique_ptr<SharedSlab>(new SharedSlab(fd.Release(), begin, bytes));
}

SharedSlab::~SharedSlab() {
  munmap(data_, FileBytes(bytes_));
  close(fd_);
}

SlabFile SharedSlab::file() const { return {.host = ThisHost(), .pid = getpid(), .fd = fd_}; }

absl::StatusOr<std::shared_ptr<const PeerSlab>> MapPeerSlab(const PeerAddress& address) {
  if (!address.slab_file.has_value()) return CannotMap(address, "it is not in shared memory");
  const SlabFile& file = *address.slab_file;
  if (file.host != ThisHost()) {
    return CannotMap(address, fmt::format("it is on another machine or in another container ({}, "
                                          "here is {})",
                                          file.host, ThisHost()));
  }
  const std::string path = fmt::format("/proc/{}/fd/{}", file.pid, file.fd);
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (fd.get() < 0) return CannotMap(address, fmt::format("{}: {}", path, std::strerror(errno)));
  const auto slab_bytes = static_cast<size_t>(address.slab_bytes());
  struct stat info {};
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (fstat(fd.get(), &info) != 0 || seals < 0 || (seals & kNeededSeals) != kNeededSeals ||
      info.st_size != static_cast<off_t>(FileBytes(slab_bytes))) {
    return CannotMap(address, fmt::format("{} is not a KV slab of {} bytes", path, slab_bytes));
  }
  void* const data = mmap(nullptr, FileBytes(slab_bytes), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return CannotMap(address, std::strerror(errno));
  auto slab = std::make_shared<MappedPeerSlab>(static_cast<std::byte*>(data), slab_bytes);
  if (slab->incarnation() != address.incarnation) {
    return CannotMap(address, fmt::format("{} belongs to incarnation {:016x}, not {:016x}", path,
                                          slab->incarnation(), address.incarnation));
  }
  return slab;
}

}  // namespace baton::kv_transfer
