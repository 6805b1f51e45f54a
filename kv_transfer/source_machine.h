#pragma once

// One transfer as its source sees it: a pure state machine. Events go in with the time, actions
// come out; no I/O, no clock, no threads.
//
//            Grant              Release(ok), all committed
//   Offered ───────► Streaming ────────────────────────────► Draining ──► Done
//      │                │  CancelSource                          ▲  (data still being sent from
//      │                ▼                                        │   our blocks comes to its end)
//      └──────────► Cancelling ── Release, or lease over ────────┘
//   Any state goes to Draining when the peer is lost, refuses, or its lease or deadline is over.
//
// Exactly one Finish comes out, whatever goes in; nothing after it. Until then the blocks are held.
//
// The worker and the Grant speak of blocks, everything else of pieces (messages.h): they are hashed
// and announced in the order in which they become complete.

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {

struct SendMessage {
  MessageBody body;
};
// Send these consecutive pieces of our slab as the data of `run`, by this way; answer with OnSent.
struct SendRun {
  PieceRun run;
  int32_t source_piece = 0;
  DataWay way = DataWay::kWire;
};
// `sends_given_up`: some did not end in time, and may still read the blocks. Whatever they carry
// then, the target has no run in flight for it, or finds another checksum, and drops it.
struct Finish {
  absl::Status status;
  bool sends_given_up = false;
};
using SourceAction = std::variant<SendMessage, SendRun, Finish>;

class SourceMachine {
 public:
  enum class State { kOffered, kStreaming, kCancelling, kDraining, kDone };
  struct Config {
    OfferMessage offer;
    std::vector<int32_t> blocks;  // offer.block_count of our slab's
    Duration lease{};
    Duration offer_timeout{};
  };

  SourceMachine(Config config, TimePoint now);

  // The worker. The lowest `slices` slices of blocks [0, count) are complete.
  void SlicesReady(int32_t count, int32_t slices);
  void BlocksReady(int32_t count) { SlicesReady(count, slices()); }
  void Commit(std::string payload, TimePoint now);
  void Cancel(const absl::Status& why, TimePoint now);

  // The pieces whose checksums are wanted next, those that are complete before the Grant among
  // them. Answer with Hashed, for the first of them or for all. Valid until any other call.
  std::span<const int32_t> ToHash() const;
  void Hashed(std::span<const uint64_t> checksums, TimePoint now);
  // Where a piece of the offer lies in our slab.
  int32_t source_piece(int32_t index) const {
    return config_.blocks[static_cast<size_t>(index / slices())] * slices() + index % slices();
  }
  // Names the content of the block that a piece is of; null for one that is not full.
  const BlockHash* content(int32_t index) const;

  // The peer and the transport.
  void OnGrant(const GrantMessage& grant, TimePoint now);
  void OnPull(const PullMessage& pull, TimePoint now);
  void OnTargetHeartbeat(TimePoint now);
  void OnRelease(const ReleaseMessage& release, TimePoint now);
  void OnSent();  // one SendRun has ended, well or badly
  void OnPeerDown(const absl::Status& why, TimePoint now);
  void OnTick(TimePoint now);  // deadlines and heartbeats; call a few times per lease

  std::vector<SourceAction> TakeActions() { return std::exchange(actions_, {}); }

  State state() const { return state_; }
  bool committed() const { return committed_; }
  int32_t slices() const { return config_.offer.slices; }
  int32_t block_count() const { return config_.offer.block_count; }
  int32_t first_block_wanted() const { return first_wanted_; }
  int32_t pieces_pulled() const { return pieces_pulled_; }

 private:
  enum class PieceState : uint8_t { kUnannounced, kAnnounced, kSent };
  bool Live() const { return state_ == State::kOffered || state_ == State::kStreaming; }
  void Send(MessageBody body) { actions_.push_back(SendMessage{std::move(body)}); }
  // No more messages; Finish(status) once nothing is being sent.
  void Drain(absl::Status status, TimePoint now);
  void FinishIfDrained();
  // What is hashed and not announced yet, and the commit after the last block.
  void Announce(TimePoint now);
  bool CommitIsDue() const;
  absl::Status CheckPull(const PieceRun& run) const;
  int32_t pieces_wanted() const { return (block_count() - first_wanted_) * slices(); }

  Config config_;
  State state_ = State::kOffered;
  TimePoint deadline_;  // of the state: Grant, lease, or end of the drain
  TimePoint next_heartbeat_;
  Duration heartbeat_{};
  int32_t first_wanted_ = 0;
  std::vector<int32_t> complete_;  // slices of each block
  int32_t whole_ = 0;              // blocks before it are complete
  std::vector<int32_t> order_;     // pieces, as they became complete; wanted ones, since the Grant
  std::vector<uint64_t> checksums_;  // of order_'s first
  size_t handled_ = 0;               // of order_: announced, or not wanted
  int32_t announced_ = 0;            // pieces of which the target knows the checksum
  bool committed_ = false;           // by the worker
  bool commit_announced_ = false;
  std::string commit_payload_;
  std::vector<PieceState> pieces_;  // each is sent at most once
  int32_t sends_outstanding_ = 0;
  int32_t pieces_pulled_ = 0;
  absl::Status outcome_;
  std::vector<SourceAction> actions_;
};

}  // namespace baton::kv_transfer
