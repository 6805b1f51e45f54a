#pragma once

// The KV handoff against the machine: two real handoff services, one transfer at a time, beside
// what the way itself gives in the same run.
//
// - TransferPeer, the target, grants whatever is offered; it lives in a process of its own, but for
//   inproc. TransferBench, the source, offers blocks that are all complete, and takes the time from
//   its Offer to its SourceDone: offer, grant, ready, bytes, verification, release.
// - The source's checksums are in that time ("at once"), as when a whole prompt were complete
// before
//   anybody asked for it; or they are not ("known"): blocks of a cached prefix, which were handed
//   over before, and those of earlier chunks, hashed while the prompt was being computed. The
//   target's verification is in it always.
// - Both sides place transfer number n in the same blocks (BlockPlan), so they need not talk.
// - The baseline of mapped slabs, and of NCCL, is memcpy of the same blocks between the two slabs,
// by
//   one thread; that of blocks pulled over UCX the raw transport (raw_ucx.h), one thread a side.
// - Transfers of each kind and the baseline take turns, each with the part of the slabs that was
//   left alone for longest, so that none finds more in the caches than another.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/report.h"
#include "bench/timing.h"
#include "kv_transfer/handoff.h"

namespace baton::bench {

// kShuffled: no two blocks that follow each other in a transfer lie together. kRuns: all do, on
// both sides, so that they may be moved as one.
enum class BlockOrder { kShuffled, kRuns };
absl::StatusOr<BlockOrder> BlockOrderFromName(std::string_view name);

struct TransferBenchOptions {
  kv_transfer::TransportKind transport = kv_transfer::TransportKind::kShm;
  std::string ucx_tls;                // as in HandoffOptions
  int32_t gpu = 0;                    // likewise: this side's
  int64_t block_bytes = 64 << 10;     // a multiple of 4 KiB
  int64_t transfer_bytes = 32 << 20;  // of one transfer, rounded to blocks, at least one
  int64_t slab_bytes = 128 << 20;     // rounded to transfers, at least four
  BlockOrder order = BlockOrder::kShuffled;
  bool compare_checksums = false;  // rows with known ones and with none, too
  int32_t repeat = 50;             // transfers measured
  StopRequested stop = nullptr;

  int32_t transfer_blocks() const;
  int32_t slab_blocks() const;  // a multiple of transfer_blocks()
};
// InvalidArgument for options without sense, with the numbers.
absl::Status CheckTransferOptions(const TransferBenchOptions& options);

// Which blocks transfer `number` takes, on both sides: the slab is gone through again and again.
class BlockPlan {
 public:
  explicit BlockPlan(const TransferBenchOptions& options);
  std::vector<int32_t> BlocksOf(uint64_t number) const;

 private:
  const int32_t transfer_blocks_;
  std::vector<int32_t> order_;  // all blocks of the slab
};

// Where a TransferPeer is reached.
struct TransferPeerAddress {
  std::string handoff, unchecked;  // HandoffService::address()
  std::string raw_ucx;             // of RawUcxReceiver; empty where there is none

  // One line of hexadecimal digits and blanks.
  std::string Encode() const;
  static absl::StatusOr<TransferPeerAddress> Decode(const std::string& line);
};

class TransferPeer {
 public:
  // Only transport, ucx_tls, gpu and sizes count. Unavailable when the transport cannot be had
  // here.
  static absl::StatusOr<std::unique_ptr<TransferPeer>> Start(const TransferBenchOptions& options);
  virtual ~TransferPeer() = default;
  virtual TransferPeerAddress address() const = 0;
  // For a TransferBench of the same process.
  virtual std::span<const std::byte> slab() const = 0;
};

class TransferBench {
 public:
  // `inproc_slab` is the peer's where it lives in this process, else empty.
  static absl::StatusOr<std::unique_ptr<TransferBench>> Connect(
      const TransferBenchOptions& options, const TransferPeerAddress& peer,
      std::span<const std::byte> inproc_slab);
  virtual ~TransferBench() = default;
  // After once through the slabs, which is not counted: a row with checksums at once, and with
  // `compare_checksums` one with known ones and one with none. Medians; Cancelled on a stop, else
  // an error of the first transfer that failed.
  virtual absl::StatusOr<std::vector<TransferRow>> Measure() = 0;
};

}  // namespace baton::bench
