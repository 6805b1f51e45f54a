#pragma once

// The KV handoff as a worker sees it: a service with a thread of its own that moves blocks from
// other workers' slabs into this one's, and offers this one's to others.
//
//   source (prefill)                          target (decode)
//   Offer{attempt, layout, tokens, hashes} ─►  OfferArrived event; the loop answers Grant or Refuse
//   ◄─ Grant{lease, first block wanted}
//   Ready{layers x blocks, checksums}     ─►  pull, verify
//   Ready{..., last, commit payload}      ─►  pull, verify; TargetDone event
//   ◄─ Release{ok | why not}                  SourceDone event: the source may let the blocks go
//
// Rules that keep it safe (docs/handoff.md):
// - Only the owner writes its pool: this service writes solely into blocks that the loop named in
//   Grant, and stops for good before it reports TargetDone.
// - Every Offer ends in exactly one SourceDone, every Grant in exactly one TargetDone, whatever the
//   peer does: leases and deadlines bound both.
// - Bytes of a source with another layout are converted into the target's blocks only after their
//   checksum was found right.
// - A message of an older epoch, of an unknown attempt, or from another incarnation is dropped.
//
// A target takes KV of another block size or number format (kernels/kv_convert.h) and converts it.
// Each side's worker speaks of its own blocks only, but for OfferInfo::layout and block_hashes,
// which are the source's; model and kv heads must be equal.
//
// Threading: every method may be called from any thread and does not block on I/O. Events are given
// to `on_event` on the service's thread, which must only pass them on (push to the loop's queue).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block_hash.h"
#include "common/clock.h"
#include "common/ids.h"
#include "kernels/kv_layout.h"
#include "kv_transfer/transport_faults.h"

namespace baton::kv_transfer {

// kShm: mapped slab of a process on this machine, refused for others. kUcx: UCX active messages
// over what `ucx_tls` allows (TCP; RDMA where present). kNccl: NCCL from GPU to GPU, refused where
// there can be none between the two; messages go over UCX. kAuto: mapped slab where the peer's can
// be mapped, unless active messages or NCCL are measured to be faster. kInproc: between services of
// this process.
enum class TransportKind { kAuto, kShm, kUcx, kNccl, kInproc };
absl::StatusOr<TransportKind> TransportKindFromName(std::string_view name);

struct HandoffOptions {
  TransportKind transport = TransportKind::kAuto;
  std::string ucx_tls;  // UCX_TLS for this service; "" chooses by `transport`
  int32_t gpu = 0;      // for NCCL: the GPU, as CUDA counts those that this process may see
  kernels::KvLayout layout;
  std::string model_fingerprint;  // both sides' must be equal; layouts may differ as told above
  int32_t block_count = 0;        // the slab has block_count * layout.block_bytes() bytes
  Duration lease = std::chrono::seconds(5);  // source frees this long after the last heartbeat
  Duration offer_timeout = std::chrono::seconds(30);  // source: longest wait for a Grant
  Duration ready_timeout = std::chrono::seconds(10);  // target: longest silence of a source
  std::optional<TransportFaults> faults;              // for tests: around the transport
  // Blocks go in slices of some layers each, of at least so many bytes (SlicesOf): the lower layers
  // move while the upper ones are computed.
  int64_t least_slice_bytes = 64 << 10;
  size_t max_transfers = 4096;  // each side; more are refused with ResourceExhausted
  // False: the path from a peer is not measured, and `auto` maps where it can.
  bool measure_paths = true;
  // False, on both sides, only to measure what checksums cost (`baton bench transfer`): a transfer
  // between a service with and one without them fails.
  bool checksums = true;
};

// How many slices of equal size a block of this layout is cut into: as many as divide its layers,
// are no smaller than that, and a transfer may have; at least 1.
int32_t SlicesOf(const kernels::KvLayout& layout, int64_t least_slice_bytes);

// What the source says it will send. Its blocks are of `layout`, which for the source is its own
// and is filled in by the service.
struct OfferInfo {
  Attempt attempt;
  int32_t tokens = 0;  // prompt tokens; BlocksFor(tokens) blocks
  // Of the full blocks. A block of the slab with the same hash as at an earlier offer holds the
  // same bytes: it is not read again for its checksum.
  std::vector<BlockHash> block_hashes;
  std::string source_name;
  kernels::KvLayout layout{};
};

// What one transfer cost, for tables, logs and metrics. Blocks and bytes are the source's.
struct TransferStats {
  std::string peer_name;
  std::string transport;  // "shm", "ucx tcp", "nccl", "inproc"
  int32_t blocks_total = 0;
  int32_t blocks_moved = 0;
  int64_t bytes_moved = 0;
  int64_t bytes_hashed = 0;  // by the source: those whose checksums were not known
  Duration elapsed{};        // Grant to the last verified byte
  Duration moving{};         // at the target: of these, while something announced was not here yet
  Duration exposed{};  // commit's arrival to the last verified byte: what prefill did not hide
  TimePoint committed_at{};  // at the target: the commit's arrival
};

// How fast blocks come from a peer by one way, as measured when it first made an offer.
struct MeasuredPath {
  std::string peer_name;
  std::string transport;  // as in TransferStats
  double gb_per_s = 0;
  double expected_gb_per_s = 0;  // what a way of this kind should give here
  bool in_use = false;           // the one that blocks come by
};

struct OfferArrived {
  OfferInfo offer;
};
struct TargetDone {  // the target's blocks are complete and verified, or `status` says why not
  Attempt attempt;
  absl::Status status;
  std::string commit_payload;
  TransferStats stats;
};
struct SourceDone {  // nobody reads the source's blocks any more
  Attempt attempt;
  absl::Status status;  // ok: the target has everything
  TransferStats stats;
};
using HandoffEvent = std::variant<OfferArrived, TargetDone, SourceDone>;

class HandoffService {
 public:
  // Allocates the slab and starts the thread. Unavailable when the transport cannot be had here
  // (UCX or NCCL not built in, no shared memory, no GPU), with the reason.
  static absl::StatusOr<std::unique_ptr<HandoffService>> Create(
      const HandoffOptions& options, std::string name, std::function<void(HandoffEvent)> on_event);
  // Ends every transfer (peers are told), joins the thread. No event comes after it returns.
  virtual ~HandoffService() = default;

  virtual std::span<std::byte> slab() const = 0;
  // Opaque bytes, at most 8 KiB, that let another service reach this one; new for every
  // incarnation.
  virtual std::string address() const = 0;

  // Source. `blocks` are this slab's blocks for all of the prompt, held by the caller until
  // SourceDone. ResourceExhausted when too many transfers run; no event then.
  virtual absl::Status Offer(const OfferInfo& offer, std::string target_address,
                             std::vector<int32_t> blocks) = 0;
  // Blocks [0, count) of the offer are complete and will not change. Counts only grow.
  virtual void BlocksReady(const Attempt& attempt, int32_t count) = 0;
  // The lowest `layers` layers of blocks [0, count) are complete and will not change. Worth telling
  // after each layer: what ends no slice costs nothing, and is not sent.
  virtual void LayersReady(const Attempt& attempt, int32_t count, int32_t layers) = 0;
  // All blocks are complete. `payload` (at most 64 KiB) reaches the target with its TargetDone.
  virtual void Commit(const Attempt& attempt, std::string payload) = 0;
  // Gives up; SourceDone(Cancelled or `why`) follows, and the target is told.
  virtual void CancelSource(const Attempt& attempt, absl::Status why) = 0;

  // Target. Answers an OfferArrived: place the prompt's blocks [first_block_wanted, ...), counted
  // in this side's layout, into `blocks` (this slab's, one for each wanted block), held by the
  // caller until TargetDone.
  virtual void Grant(const Attempt& attempt, int32_t first_block_wanted,
                     std::vector<int32_t> blocks) = 0;
  virtual void Refuse(const Attempt& attempt, absl::Status why) = 0;
  // Stops writing. If granted and not yet done, TargetDone(Cancelled) follows.
  virtual void CancelTarget(const Attempt& attempt) = 0;

  // Transfers running now, as source and as target. For tests, drain and metrics.
  virtual size_t active_transfers() const = 0;
  // The ways from peers that made offers and are connected, once they are measured; of one peer,
  // the way in use comes first.
  virtual std::vector<MeasuredPath> paths() const = 0;
};

}  // namespace baton::kv_transfer
