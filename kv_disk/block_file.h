#pragma once

// The file of a disk cache: fixed slots of one KV block each, and a table that says what is in
// them.
//
//   [header, 4 KiB][table: one 64-byte record a slot][slots, each a multiple of 4 KiB]
//
// A record has its block's hash and the checksum of its bytes, and a checksum of its own. It is
// written after the bytes. Nothing is flushed: after a crash, a record whose bytes did not arrive
// fails its checksum when it is read. Numbers are in the machine's byte order.
//
// The file belongs to one process (flock) and is readable by its owner only (0600). It finds
// corruption, not forgery: who may write the file may decide what is read.
//
// One thread at a time. Every call but slots() and Found() blocks on the disk.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block_hash.h"

namespace baton::kv_disk {

struct BlockFileOptions {
  std::string path;
  int64_t bytes = 0;        // the most that the file may take
  int64_t block_bytes = 0;  // of one KV block
  // What computed the blocks: model, arithmetic, KV layout. At most kMostIdentityBytes.
  std::string identity;
};

inline constexpr size_t kMostIdentityBytes = 2048;

class BlockFile {
 public:
  // What the table says of a slot.
  struct Record {
    int32_t slot = 0;
    BlockHash hash{};
    int32_t previous = -1;  // slot of the block before it in its chain when it was last used
  };

  // Opens or makes the file at its whole size. What is there is kept when identity and sizes are
  // equal; else the file is started over, with a warning. NotFound without the directory,
  // PermissionDenied, FailedPrecondition when another process has the file or it is not of this
  // kind (it is left as it was), ResourceExhausted without room, InvalidArgument for a size that
  // holds no block.
  static absl::StatusOr<std::unique_ptr<BlockFile>> Open(const BlockFileOptions& options);
  ~BlockFile();
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  int32_t slots() const { return slots_; }
  // The sound records, least recently used first.
  std::vector<Record> Found() const;

  // Bytes, then record.
  absl::Status Write(const Record& record, std::span<const std::byte> block);
  // DataLoss when bytes or record are not those of `hash`, or the file is too short.
  absl::Status Read(int32_t slot, const BlockHash& hash, std::span<std::byte> block) const;
  // Notes that the slot was used, for the order after the next Open.
  absl::Status Use(int32_t slot, int32_t previous);
  // The slot holds nothing any more.
  absl::Status Erase(int32_t slot);
  // Asks the system to forget what it holds of the slot in memory, so that the next Read tells the
  // speed of the disk. A hint.
  void Uncache(int32_t slot) const;

 private:
  // As on disk. All zeros: nothing is there.
  struct TableRecord {
    BlockHash hash{};
    uint64_t block_checksum = 0;
    uint64_t stamp = 0;  // counts uses
    int32_t previous = -1;
    uint32_t reserved = 0;
    uint64_t checksum = 0;  // of the fields before
  };
  static_assert(sizeof(TableRecord) == 64);
  static uint64_t ChecksumOf(const TableRecord& record);

  BlockFile(const BlockFileOptions& options, int file);
  absl::Status Own() const;
  absl::Status Prepare();
  absl::StatusOr<bool> StartsOver() const;
  absl::Status TakeRoom() const;
  absl::Status LoadTable();
  absl::Status Store(int32_t slot);
  int64_t SlotOffset(int32_t slot) const;
  int64_t FileBytes() const { return SlotOffset(slots()); }

  const BlockFileOptions options_;
  const int file_;
  const int32_t slots_;
  std::vector<TableRecord> table_;  // when there is room for the file
  uint64_t last_stamp_ = 0;
};

}  // namespace baton::kv_disk
