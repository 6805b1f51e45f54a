#pragma once

// What runs on a handoff service's thread: it feeds the machines of all transfers with commands,
// messages and time, and does what they ask. Not thread-safe; nothing here blocks.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "common/clock.h"
#include "kv_transfer/block_conversion.h"
#include "kv_transfer/block_copy.h"
#include "kv_transfer/handoff.h"
#include "kv_transfer/offer_fence.h"
#include "kv_transfer/path_probe.h"
#include "kv_transfer/peer_table.h"
#include "kv_transfer/source_checksums.h"
#include "kv_transfer/source_machine.h"
#include "kv_transfer/target_machine.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

class HandoffLoop final : private TransportEvents {
 public:
  // `own` is this service's address, decoded. `transport` and `clock` outlive the loop. TargetDone
  // goes to `on_event` after the transfer has left active_targets().
  HandoffLoop(Transport& transport, const Clock& clock, const HandoffOptions& options,
              const PeerAddress& own, std::string encoded_own,
              std::function<void(HandoffEvent)> on_event);

  // Commands, as in HandoffService; `target` was checked to be compatible.
  void Offer(const OfferInfo& offer, const PeerAddress& target, std::vector<int32_t> blocks);
  void BlocksReady(const Attempt& attempt, int32_t count) { SlicesReady(attempt, count, slices_); }
  // The lowest `slices` of slices() slices of these blocks.
  void SlicesReady(const Attempt& attempt, int32_t count, int32_t slices);
  void Commit(const Attempt& attempt, std::string payload);
  void CancelSource(const Attempt& attempt, const absl::Status& why);
  void Grant(const Attempt& attempt, int32_t first_block_wanted, std::vector<int32_t> blocks);
  void Refuse(const Attempt& attempt, const absl::Status& why);
  void CancelTarget(const Attempt& attempt);

  // One round: what has arrived, a bounded amount of hashing and copying, what is due. True when
  // there was something to do.
  bool Step();
  // How long nothing will be due.
  Duration IdleTime() const;
  // Ends every transfer, telling the peers; takes a bounded time.
  void EndAll();

  // Time as of the last Step or TakeTime.
  TimePoint now() const { return now_; }
  void TakeTime() { now_ = clock_.Now(); }
  // Whether any transfer runs.
  bool active() const { return !sources_.empty() || !targets_.empty(); }
  // From any thread. Of a block of this slab, where the target takes slices.
  int32_t slices() const { return slices_; }
  size_t active_targets() const { return active_targets_.load(); }
  std::vector<MeasuredPath> paths() const { return probes_.Measured(); }

 private:
  struct SourceTransfer {
    SourceTransfer(SourceMachine::Config config, TimePoint now) : machine(std::move(config), now) {}
    SourceMachine machine;
    uint64_t serial = 0;  // tells it from an earlier transfer of the same attempt
    PeerId peer = 0;
    uint64_t peer_incarnation = 0;
    std::string peer_name;
    DataWay way = DataWay::kWire;  // by which it was asked for data last
    TimePoint granted_at, committed_at;
    int64_t piece_bytes = 0;
    int32_t pieces_hashed = 0;
    bool queued = false;  // in to_hash_
  };
  struct TargetTransfer {
    TargetTransfer(const TargetMachine::Config& config, TimePoint now) : machine(config, now) {}
    TargetMachine machine;
    PeerId peer = 0;
    uint64_t peer_incarnation = 0;
    std::string peer_name;
    std::shared_ptr<const PeerSlab> slab;  // null: blocks are pulled
    DataWay way = DataWay::kWire;          // by which
    int64_t piece_bytes = 0;
    // Where the source's layout is another: the machine's target blocks have no meaning then.
    std::optional<BlockConversion> conversion;
    int64_t pulled_in_flight_bytes = 0;
    bool queued = false;  // in to_move_
  };
  struct SendInProgress {
    Attempt attempt;
    uint64_t serial = 0;
  };

  void OnMessage(std::span<const std::byte> message) override;
  bool WantsData(std::span<const std::byte> header, size_t payload_bytes) override;
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override;
  void OnSent(uint64_t tag) override;
  void OnPeerDown(PeerId peer, const absl::Status& why) override;
  void OnLane(PeerId peer, const absl::Status& status) override;

  void HandleOffer(const Message& message, const OfferMessage& offer);
  // Of this request, as target.
  void EndOlderEpochs(const Attempt& attempt);
  absl::Status CheckOffer(const OfferMessage& offer, Peer& peer);
  kernels::KvLayout LayoutOf(const PeerAddress& compatible) const;
  void AdmitOffer(const Attempt& attempt, const OfferMessage& offer, Peer& peer);
  void HandleCancel(const Message& message, const CancelMessage& cancel);
  SourceTransfer* FindSource(const Message& message);
  TargetTransfer* FindTarget(const Attempt& attempt, uint64_t sender);
  void SendTo(PeerId peer, const Attempt& attempt, MessageBody body);

  // Does what the machine asks for; the transfer may be gone afterwards.
  void Settle(const Attempt& attempt, SourceTransfer& transfer);
  void Settle(const Attempt& attempt, TargetTransfer& transfer);
  void StartSend(const Attempt& attempt, const SourceTransfer& transfer, const SendRun& send);
  void FinishSource(const Attempt& attempt, const absl::Status& status);
  void FinishTarget(const Attempt& attempt, const TargetFinish& finish);

  bool HashSome();
  // Of piece `index` of the offer: as it is kept, or by reading it.
  uint64_t ChecksumOf(SourceTransfer& transfer, int32_t index);
  bool MoveSome();
  // A turn of one transfer; the bytes it took, 0 when it has nothing to move or has to wait.
  int64_t CopyTurn(const Attempt& attempt, TargetTransfer& transfer);
  int64_t PullTurn(const Attempt& attempt, TargetTransfer& transfer);
  void Land(TargetTransfer& transfer, const Landing& landing, const std::byte* bytes);
  uint64_t Take(TargetTransfer& transfer, const Landing& landing, int32_t i,
                std::span<const std::byte> piece);
  void QueueToHash(const Attempt& attempt, SourceTransfer& transfer);
  void QueueToMove(const Attempt& attempt, TargetTransfer& transfer);
  void TickTransfers();
  // Of our slab, cut into pieces of this size.
  std::span<std::byte> Pieces(int32_t first, int32_t count, int64_t piece_bytes) const;

  Transport& transport_;
  const Clock& clock_;
  const HandoffOptions options_;
  const PeerAddress own_;
  const std::string encoded_own_;
  const std::function<void(HandoffEvent)> on_event_;
  const int64_t block_bytes_;
  const int32_t slices_;
  const Duration tick_interval_;

  TimePoint now_;
  TimePoint next_tick_;
  PeerTable peers_;
  PathProbes probes_;
  // In order, so that what is done to all of them is done in an order that repeats.
  absl::btree_map<Attempt, std::unique_ptr<SourceTransfer>> sources_;
  absl::btree_map<Attempt, std::unique_ptr<TargetTransfer>> targets_;
  OfferFence fence_;
  std::deque<Attempt> to_hash_, to_move_;  // whose turn it is next
  int64_t pulled_in_flight_bytes_ = 0;
  absl::flat_hash_map<uint64_t, SendInProgress> sends_;
  uint64_t next_serial_ = 1;
  bool ending_ = false;
  BlockCopier copier_;
  SourceChecksums kept_checksums_;
  std::vector<uint64_t> checksums_;    // scratch
  std::vector<std::byte> unverified_;  // a block of a source with another layout
  std::atomic<size_t> active_targets_ = 0;
};

}  // namespace baton::kv_transfer
