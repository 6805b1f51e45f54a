#include "model_file/gguf.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/status_macros.h"
#include "model_file/gguf_parser.h"

namespace baton {
namespace {

struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

absl::Status ErrnoStatus(int error, std::string_view what, const std::string& path) {
  const std::string message = fmt::format("cannot {} {}: {}", what, path, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

// For all pages that `data` touches.
void Advise(std::span<const std::byte> data, int advice) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(data.data()) % page;
  madvise(const_cast<std::byte*>(data.data()) - before, data.size() + before, advice);
}

std::string_view TypeName(const GgufValue& value) {
  constexpr std::string_view kNames[] = {"a bool",
                                         "an integer",
                                         "a float",
                                         "a string",
                                         "an array of strings",
                                         "an array of integers",
                                         "an array of floats",
                                         "an array of bools"};
  static_assert(std::size(kNames) == std::variant_size_v<GgufValue>);
  return kNames[value.index()];
}

absl::Status Absent(const GgufFile& file, std::string_view key) {
  return absl::NotFoundError(fmt::format("{} has no key '{}'", file.path(), key));
}

absl::Status WrongType(const GgufFile& file, std::string_view key, const GgufValue& value,
                       std::string_view wanted) {
  return absl::InvalidArgumentError(
      fmt::format("{}: key '{}' is {}, not {}", file.path(), key, TypeName(value), wanted));
}

// The value as a T; a span for arrays.
template <typename T, typename Stored = T>
absl::StatusOr<T> Get(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return Absent(file, key);
  const Stored* stored = std::get_if<Stored>(value);
  if (stored == nullptr) return WrongType(file, key, *value, wanted);
  return T(*stored);
}

template <typename T>
using Array = std::span<const T>;

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t d = 1; d < shape.size(); ++d) rows *= shape[d];
  return rows;
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  FileDescriptor file;
  file.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd < 0) return ErrnoStatus(errno, "open", path);
  struct stat info;
  if (fstat(file.fd, &info) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{} is not a regular file", path));
  }
  if (info.st_size == 0) return absl::InvalidArgumentError(fmt::format("{} is empty", path));

  std::shared_ptr<GgufFile> gguf(new GgufFile());
  gguf->path_ = path;
  void* base = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  gguf->base_ = static_cast<const std::byte*>(base);
  gguf->file_bytes_ = info.st_size;
  BATON_RETURN_IF_ERROR(GgufParser(gguf.get()).Parse());
  return gguf;
}

GgufFile::~GgufFile() {
  if (base_ != nullptr) {
    munmap(const_cast<std::byte*>(base_), static_cast<size_t>(file_bytes_));
  }
}

bool GgufFile::Has(std::string_view key) const { return Find(key) != nullptr; }

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

absl::StatusOr<std::string_view> GgufFile::String(std::string_view key) const {
  return Get<std::string_view>(*this, key, "a string");
}

absl::StatusOr<int64_t> GgufFile::Int(std::string_view key) const {
  return Get<int64_t>(*this, key, "an integer");
}

absl::StatusOr<double> GgufFile::Float(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr && std::holds_alternative<int64_t>(*value)) {
    return static_cast<double>(std::get<int64_t>(*value));
  }
  return Get<double>(*this, key, "a number");
}

absl::StatusOr<std::span<const std::string_view>> GgufFile::Strings(std::string_view key) const {
  return Get<Array<std::string_view>, std::vector<std::string_view>>(*this, key,
                                                                     "an array of strings");
}

absl::StatusOr<std::span<const int64_t>> GgufFile::Ints(std::string_view key) const {
  return Get<Array<int64_t>, std::vector<int64_t>>(*this, key, "an array of integers");
}

absl::StatusOr<std::span<const double>> GgufFile::Floats(std::string_view key) const {
  return Get<Array<double>, std::vector<double>>(*this, key, "an array of floats");
}

absl::StatusOr<std::string_view> GgufFile::StringOr(std::string_view key,
                                                    std::string_view fallback) const {
  return Has(key) ? String(key) : fallback;
}

absl::StatusOr<int64_t> GgufFile::IntOr(std::string_view key, int64_t fallback) const {
  return Has(key) ? Int(key) : fallback;
}

absl::StatusOr<double> GgufFile::FloatOr(std::string_view key, double fallback) const {
  return Has(key) ? Float(key) : fallback;
}

absl::StatusOr<bool> GgufFile::BoolOr(std::string_view key, bool fallback) const {
  return Has(key) ? Get<bool>(*this, key, "a bool") : fallback;
}

void GgufFile::WillRead(const GgufTensor& tensor) const { Advise(tensor.data, MADV_WILLNEED); }
void GgufFile::WasRead(const GgufTensor& tensor) const { Advise(tensor.data, MADV_DONTNEED); }

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace baton
