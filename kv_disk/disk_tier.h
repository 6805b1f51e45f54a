#pragma once

// A cache of KV blocks on disk, behind the pool: blocks are written as they become full, and read
// back when a prompt goes on with them and the pool has them no more.
//
// One thread of its own does all I/O, reads before writes, so that no slot is read and written at
// once and the device thread never waits for the disk. What is to be written is copied into a
// bounded set of buffers; what is read is verified in a buffer of the tier, and only then copied to
// where it is wanted. So a read can be given up at any moment, and a block that is damaged never
// reaches the pool: it is a miss.
//
// A chain is the hashes of a prompt's full blocks, first one first. They name model, KV layout,
// tenant and all tokens up to the block's end: equal hash, equal KV.
//
// A write that fails (a full disk) switches the tier off, with an error in the log; the worker goes
// on without it. One thread uses a tier; status() any.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/block_hash.h"
#include "common/block_journal.h"
#include "common/clock.h"
#include "kv_disk/block_file.h"
#include "kv_disk/slot_index.h"

namespace baton::kv_disk {

struct DiskTierOptions {
  std::string directory;  // exists; blocks are in its file "NAME.kvcache"
  std::string name;       // of the worker; letters, digits, '.', '-' and '_' are kept, others "_"
  int64_t bytes = 0;      // as in BlockFileOptions, and so on
  int64_t block_bytes = 0;
  std::string identity;
  int64_t write_buffer_bytes = int64_t{64} << 20;  // room for one block at least
  BlockJournal* journal = nullptr;  // where what is on disk is noted; it outlives the tier
};

// Of now, and since the start.
struct DiskTierStatus {
  bool on = true;
  int32_t blocks = 0;
  int32_t blocks_total = 0;
  double bytes_per_s = 0;  // of reads, the later ones counting more; 0: not measured yet
  int64_t blocks_hit = 0;  // asked for and known
  int64_t blocks_missed = 0;
  int64_t blocks_read = 0;
  int64_t blocks_written = 0;
  int64_t blocks_dropped = 0;  // not written: the disk did not keep up
  int64_t blocks_evicted = 0;
  int64_t blocks_damaged = 0;  // wrong checksum or not to be read
};

using ReadId = uint64_t;

class DiskTier {
 public:
  // Errors as BlockFile::Open. `on_read` is called, on the tier's thread, when TakeFinished has
  // something.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Create(const DiskTierOptions& options,
                                                          std::function<void()> on_read);
  // Writes what waits to be written, for a few seconds at most. Reads that run are given up.
  ~DiskTier();

  // How many blocks of the chain, from `first` on, can be read. Nothing while the disk does not
  // answer.
  int32_t CountMatch(std::span<const BlockHash> chain, size_t first);

  // Starts to write block `index` of the chain; nothing to do when it is there already. False when
  // all buffers wait for the disk: worth trying again later.
  bool Save(std::span<const BlockHash> chain, size_t index, std::span<const std::byte> block);
  // So many blocks were not saved in the end.
  void CountDropped(int64_t blocks);

  // Reads into.size() blocks of the chain, from `first` on, until one is missing or damaged.
  // `into` is written to until the read is finished or cancelled.
  ReadId StartRead(std::span<const BlockHash> chain, size_t first,
                   std::vector<std::span<std::byte>> into);
  // Gives the read up: afterwards nothing is written and it will not be told as finished. Returns
  // how many blocks are there. The read must not have been taken as finished.
  int32_t CancelRead(ReadId id);

  struct Finished {
    ReadId id = 0;
    int32_t blocks = 0;  // so many, from the first, are there
  };
  std::vector<Finished> TakeFinished();

  // Bytes that reads before a new one have yet to bring.
  int64_t bytes_to_read() const;
  // Measures the rate again when there is nothing else to do: for who finds it too low to read.
  void MeasureAgain();

  DiskTierStatus status() const;

 private:
  struct Read {
    ReadId id = 0;
    std::vector<BlockHash> hashes;
    std::optional<BlockHash> previous;  // of the first
    std::vector<std::span<std::byte>> into;
    std::mutex mutex;
    bool cancelled = false;  // guarded by mutex, as is what `into` refers to until then
    int32_t done = 0;        // likewise
  };
  struct Write {
    BlockHash hash{};
    std::optional<BlockHash> previous;
    int32_t place = 0;  // in the chain, from 1
    int32_t buffer = 0;
  };
  enum class Work { kRead, kWrite, kMeasure, kEnd };

  DiskTier(std::unique_ptr<BlockFile> file, const DiskTierOptions& options,
           std::function<void()> on_read);
  void Load();

  // On the tier's thread.
  void Run();
  Work NextWork();
  void DoRead();
  void DoWrite();
  void DoMeasure();
  bool ReadBlock(const BlockHash& hash, const std::optional<BlockHash>& previous,
                 std::span<std::byte> into);
  void SwitchOff(const absl::Status& why);

  // With mutex_ held.
  int32_t SlotOfLocked(const std::optional<BlockHash>& hash) const;
  bool AnswersLocked() const;
  void EnterLocked(const BlockFile::Record& record, int32_t place);
  void ForgottenLocked(int32_t slot);
  void NoteRateLocked(int64_t bytes, Duration elapsed);

  std::span<std::byte> Buffer(int32_t index) const;

  const int64_t block_bytes_;
  const int32_t buffer_count_;
  const std::function<void()> on_read_;
  BlockJournal* const journal_;
  const std::unique_ptr<BlockFile> file_;  // of the tier's thread
  const std::unique_ptr<std::byte[]> buffers_;
  const std::unique_ptr<std::byte[]> staging_;  // of the tier's thread

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  SlotIndex index_;
  std::vector<BlockKey> keys_;  // by slot, of the block that was entered last
  bool closing_ = false;
  TimePoint close_deadline_;
  std::optional<TimePoint> busy_since_;  // the disk was asked for something then
  std::deque<std::shared_ptr<Read>> reads_;
  std::shared_ptr<Read> reading_;
  std::deque<Write> writes_;
  absl::flat_hash_set<BlockHash, BlockHashHasher> waiting_;  // hashes in writes_ and being written
  std::vector<int32_t> free_buffers_;
  std::vector<Finished> finished_;
  ReadId last_read_ = 0;
  bool measure_ = true;
  TimePoint measured_at_;
  DiskTierStatus status_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace baton::kv_disk
