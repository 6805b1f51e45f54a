#include "kv_disk/block_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>
#include <utility>

#include "common/checksum.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::kv_disk {
namespace {

constexpr int64_t kPage = 4096;
constexpr std::array<char, 8> kMagic{'B', 'A', 'T', 'O', 'N', 'K', 'V', '\n'};
constexpr uint32_t kFormat = 1;  // to be raised with every change of what lies where

struct Header {
  std::array<char, 8> magic{};
  uint32_t format = 0;
  uint32_t slots = 0;
  uint64_t block_bytes = 0;
  uint64_t identity_bytes = 0;
  std::array<char, kMostIdentityBytes> identity{};
  uint64_t checksum = 0;  // of the fields before
};
static_assert(sizeof(Header) <= kPage);

int64_t RoundUp(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Header HeaderFor(const BlockFileOptions& options, int32_t slots) {
  Header header;
  header.magic = kMagic;
  header.format = kFormat;
  header.slots = static_cast<uint32_t>(slots);
  header.block_bytes = static_cast<uint64_t>(options.block_bytes);
  header.identity_bytes = options.identity.size();
  std::ranges::copy(options.identity, header.identity.begin());
  header.checksum = Checksum(BytesOf(header).first(offsetof(Header, checksum)));
  return header;
}

// So many that header, table and slots take `bytes` at most.
int64_t SlotsFor(const BlockFileOptions& options, int64_t record_bytes) {
  if (options.block_bytes < 1 || options.bytes < 2 * kPage) return 0;
  const int64_t each = RoundUp(options.block_bytes) + record_bytes;
  return (options.bytes - 2 * kPage) / each;  // one page of rounding after the table
}

absl::Status FileError(std::string_view what, const std::string& path, int error) {
  const std::string text = fmt::format("cannot {} {}: {}", what, path, std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status WriteAt(int file, const std::string& path, int64_t offset,
                     std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return FileError("write to", path, count < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += count;
  }
  return absl::OkStatus();
}

// How many bytes there were: fewer than asked for at the file's end.
absl::StatusOr<size_t> ReadAt(int file, const std::string& path, int64_t offset,
                              std::span<std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        pread(file, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("read", path, errno);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

}  // namespace

uint64_t BlockFile::ChecksumOf(const TableRecord& record) {
  return Checksum(BytesOf(record).first(offsetof(TableRecord, checksum)));
}

BlockFile::BlockFile(const BlockFileOptions& options, int file)
    : options_(options),
      file_(file),
      slots_(static_cast<int32_t>(SlotsFor(options, sizeof(TableRecord)))) {}

BlockFile::~BlockFile() { close(file_); }

int64_t BlockFile::SlotOffset(int32_t slot) const {
  const int64_t table_bytes = slots_ * int64_t{sizeof(TableRecord)};
  return RoundUp(kPage + table_bytes) + slot * RoundUp(options_.block_bytes);
}

absl::StatusOr<std::unique_ptr<BlockFile>> BlockFile::Open(const BlockFileOptions& options) {
  const int64_t slots = SlotsFor(options, sizeof(TableRecord));
  if (slots < 1 || slots > INT32_MAX || options.identity.size() > kMostIdentityBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "a disk cache of {} bytes holds {} KV blocks of {} bytes (identity of {} bytes)",
        options.bytes, slots, options.block_bytes, options.identity.size()));
  }
  const int file =
      open(options.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (file < 0) return FileError("open the KV disk cache", options.path, errno);
  std::unique_ptr<BlockFile> opened(new BlockFile(options, file));
  BATON_RETURN_IF_ERROR(opened->Own());
  BATON_RETURN_IF_ERROR(opened->Prepare());
  return opened;
}

absl::Status BlockFile::Own() const {
  struct stat state {};
  if (fstat(file_, &state) != 0) return FileError("look at", options_.path, errno);
  if (!S_ISREG(state.st_mode)) {
    return absl::FailedPreconditionError(fmt::format("{} is not a regular file", options_.path));
  }
  if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError("lock", options_.path, errno);
    return absl::FailedPreconditionError(
        fmt::format("{} is in use by another process: each worker needs a name or a directory of "
                    "its own",
                    options_.path));
  }
  if (fchmod(file_, S_IRUSR | S_IWUSR) != 0)
    return FileError("keep to myself", options_.path, errno);
  return absl::OkStatus();
}

absl::Status BlockFile::Prepare() {
  BATON_ASSIGN_OR_RETURN(const bool start_over, StartsOver());
  if (start_over) {
    // The header before the room: a file that was begun, but not finished, is known again.
    if (ftruncate(file_, 0) != 0) return FileError("empty", options_.path, errno);
    BATON_RETURN_IF_ERROR(WriteAt(file_, options_.path, 0, BytesOf(HeaderFor(options_, slots_))));
  }
  BATON_RETURN_IF_ERROR(TakeRoom());
  return LoadTable();
}

// Whether there is nothing in the file that this cache can go on with.
absl::StatusOr<bool> BlockFile::StartsOver() const {
  Header found;
  BATON_ASSIGN_OR_RETURN(const size_t bytes, ReadAt(file_, options_.path, 0,
                                                    std::as_writable_bytes(std::span(&found, 1))));
  // Zeros are what a crash may leave of a file that was just begun.
  if (bytes == 0 || found.magic == decltype(kMagic){}) return true;
  if (found.magic != kMagic) {
    return absl::FailedPreconditionError(
        fmt::format("{} is not a KV disk cache, and is left as it is", options_.path));
  }
  const Header right = HeaderFor(options_, slots_);
  if (std::memcmp(&found, &right, sizeof right) == 0) return false;
  const bool sound = found.checksum == Checksum(BytesOf(found).first(offsetof(Header, checksum))) &&
                     found.identity_bytes <= kMostIdentityBytes;
  const std::string_view identity(found.identity.data(), sound ? found.identity_bytes : 0);
  LogWarning(fmt::format(
      "the KV disk cache {} is started over: it has {} blocks of {} bytes, format {}, of '{}'; "
      "wanted are {} of {}, format {}, of '{}'",
      options_.path, found.slots, found.block_bytes, found.format,
      sound ? identity : "a damaged header", right.slots, right.block_bytes, right.format,
      options_.identity));
  return true;
}

// All of it now, so that the disk is not found to be full later.
absl::Status BlockFile::TakeRoom() const {
  struct stat state {};
  struct statvfs disk {};
  if (fstat(file_, &state) != 0 || fstatvfs(file_, &disk) != 0) {
    return FileError("look at", options_.path, errno);
  }
  // Asked first: trying would fill the disk, for everybody, before it fails.
  const int64_t missing = FileBytes() - state.st_blocks * 512;
  const auto available = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
  if (missing > available) {
    return absl::ResourceExhaustedError(
        fmt::format("{} needs {} bytes more for a KV disk cache of {}, {} bytes are free",
                    options_.path, missing, FileBytes(), available));
  }
  if (fallocate(file_, 0, 0, FileBytes()) == 0) return absl::OkStatus();
  if (errno == EOPNOTSUPP && ftruncate(file_, FileBytes()) == 0) {
    LogWarning(
        fmt::format("the file system of {} cannot set {} bytes aside: when it is full, the "
                    "KV disk cache stops",
                    options_.path, FileBytes()));
    return absl::OkStatus();
  }
  const absl::Status error =
      FileError(fmt::format("set {} bytes aside for", FileBytes()), options_.path, errno);
  // What it took of the room goes back.
  if (ftruncate(file_, 0) != 0) {
    LogWarning(FileError("empty", options_.path, errno).ToString());
  }
  return error;
}

absl::Status BlockFile::LoadTable() {
  table_.resize(static_cast<size_t>(slots_));
  BATON_ASSIGN_OR_RETURN(const size_t bytes, ReadAt(file_, options_.path, kPage,
                                                    std::as_writable_bytes(std::span(table_))));
  if (bytes < table_.size() * sizeof(TableRecord)) {
    return absl::DataLossError(fmt::format("{} ends in its table", options_.path));
  }
  int64_t damaged = 0;
  for (TableRecord& record : table_) {
    const bool sound = record.stamp > 0 && record.checksum == ChecksumOf(record);
    if (sound) {
      last_stamp_ = std::max(last_stamp_, record.stamp);
      continue;
    }
    damaged += record.stamp > 0 ? 1 : 0;
    record = {};
  }
  if (damaged > 0) {
    LogWarning(fmt::format("{}: {} of {} records are damaged and left out", options_.path, damaged,
                           table_.size()));
  }
  return absl::OkStatus();
}

std::vector<BlockFile::Record> BlockFile::Found() const {
  std::vector<int32_t> used;
  for (int32_t slot = 0; slot < slots(); ++slot) {
    if (table_[slot].stamp > 0) used.push_back(slot);
  }
  std::ranges::sort(used, {}, [this](int32_t slot) { return table_[slot].stamp; });
  std::vector<Record> found;
  found.reserve(used.size());
  for (const int32_t slot : used) {
    found.push_back({slot, table_[slot].hash, table_[slot].previous});
  }
  return found;
}

absl::Status BlockFile::Write(const Record& record, std::span<const std::byte> block) {
  BATON_CHECK(static_cast<int64_t>(block.size()) == options_.block_bytes, "a slot holds one block");
  table_[record.slot] = {};
  BATON_RETURN_IF_ERROR(WriteAt(file_, options_.path, SlotOffset(record.slot), block));
  TableRecord& entry = table_[record.slot];
  entry.hash = record.hash;
  entry.block_checksum = Checksum(block);
  entry.previous = record.previous;
  entry.stamp = ++last_stamp_;
  return Store(record.slot);
}

absl::Status BlockFile::Read(int32_t slot, const BlockHash& hash,
                             std::span<std::byte> block) const {
  BATON_CHECK(static_cast<int64_t>(block.size()) == options_.block_bytes, "a slot holds one block");
  const TableRecord& record = table_[slot];
  if (record.stamp == 0 || record.hash != hash) {
    return absl::DataLossError(
        fmt::format("slot {} of {} holds another block", slot, options_.path));
  }
  BATON_ASSIGN_OR_RETURN(const size_t bytes, ReadAt(file_, options_.path, SlotOffset(slot), block));
  if (bytes < block.size()) {
    return absl::DataLossError(fmt::format("slot {} of {} ends after {} of {} bytes", slot,
                                           options_.path, bytes, block.size()));
  }
  if (const uint64_t checksum = Checksum(block); checksum != record.block_checksum) {
    return absl::DataLossError(
        fmt::format("slot {} of {} has checksum {:016x}, {:016x} was written", slot, options_.path,
                    checksum, record.block_checksum));
  }
  return absl::OkStatus();
}

absl::Status BlockFile::Use(int32_t slot, int32_t previous) {
  TableRecord& record = table_[slot];
  if (record.stamp == 0) return absl::OkStatus();
  record.previous = previous;
  record.stamp = ++last_stamp_;
  return Store(slot);
}

absl::Status BlockFile::Erase(int32_t slot) {
  table_[slot] = {};
  return WriteAt(file_, options_.path, kPage + slot * int64_t{sizeof(TableRecord)},
                 BytesOf(table_[slot]));
}

absl::Status BlockFile::Store(int32_t slot) {
  TableRecord& record = table_[slot];
  record.checksum = ChecksumOf(record);
  return WriteAt(file_, options_.path, kPage + slot * int64_t{sizeof(TableRecord)},
                 BytesOf(record));
}

void BlockFile::Uncache(int32_t slot) const {
  posix_fadvise(file_, SlotOffset(slot), RoundUp(options_.block_bytes), POSIX_FADV_DONTNEED);
}

}  // namespace baton::kv_disk
