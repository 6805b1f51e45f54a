#pragma once

// One transfer as its target sees it: a pure state machine, like SourceMachine.
//
//            Grant             all wanted blocks landed and verified, and the commit is here
//   Offered ───────► Pulling ─────────────────────────────────────────────► Done: Release(ok)
//      │                └── cancel by either side, bad checksum, silence, peer lost ─► Done
//      └── refused, cancelled, never answered, peer lost ─► Done
//
// Exactly one Finish comes out, `granted` telling whether the worker waits for a TargetDone.
// Nothing is written on the transfer's behalf after it: NextRun gives nothing, and Landing is
// empty.
//
// The order of messages does not matter: what counts is how many pieces were verified. The worker
// speaks of blocks, everything else of pieces (messages.h).

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {

struct TargetSend {
  MessageBody body;
};
struct TargetFinish {
  absl::Status status;
  bool granted = false;
};
using TargetAction = std::variant<TargetSend, TargetFinish>;

// Consecutive pieces of the source's slab that go into consecutive pieces of ours.
struct Landing {
  PieceRun run;
  int32_t source_piece = 0;
  int32_t target_piece = 0;
};

class TargetMachine {
 public:
  enum class State { kOffered, kPulling, kDone };
  struct Config {
    int32_t block_count = 0;         // of the offer
    int32_t slices = 1;              // of a block
    int32_t source_slab_blocks = 0;  // block numbers that the source may name
    Duration lease{};                // of the source, renewed by our heartbeats
    Duration offer_timeout{};        // longest wait for the worker's answer
    Duration ready_timeout{};        // longest silence of the source
  };

  TargetMachine(const Config& config, TimePoint now);

  // The worker. `blocks` has one of our slab's for each block wanted; InvalidArgument ends it.
  void Grant(int32_t first_block_wanted, std::vector<int32_t> blocks, TimePoint now);
  void Refuse(const absl::Status& why);
  void Cancel(const absl::Status& why);

  // Whether NextRun would give one.
  bool HasRun();
  // The next run to fetch, at most `most` pieces; it is in flight then. Empty: nothing now.
  std::optional<Landing> NextRun(int32_t most);
  // Where the data of a run in flight goes; empty when no such run is in flight.
  std::optional<Landing> InFlight(const PieceRun& run) const;
  // Whether the source announced this checksum of a piece in flight.
  bool Announced(int32_t index, uint64_t checksum) const { return At(index).checksum == checksum; }
  // The run's bytes lie in our blocks, with these checksums.
  void OnLanded(const PieceRun& run, std::span<const uint64_t> checksums, TimePoint now);

  // The peer and the transport.
  void OnReady(const ReadyMessage& ready, TimePoint now);
  void OnSourceHeartbeat(const SourceHeartbeat& heartbeat, TimePoint now);
  void OnCancel(const CancelMessage& cancel);
  void OnPeerDown(const absl::Status& why);
  void OnTick(TimePoint now);

  std::vector<TargetAction> TakeActions() { return std::exchange(actions_, {}); }

  State state() const { return state_; }
  const std::string& commit_payload() const { return commit_payload_; }
  int32_t slices() const { return config_.slices; }
  int32_t pieces_landed() const { return landed_; }
  int32_t block_count() const { return config_.block_count; }
  TimePoint granted_at() const { return granted_at_; }
  TimePoint committed_at() const { return committed_at_; }  // when the commit came
  TimePoint last_landed_at() const { return last_landed_at_; }
  // How long, all together, a block was announced and not here.
  Duration moving() const { return moving_; }

 private:
  enum class PieceState : uint8_t { kUnknown, kReady, kInFlight, kLanded };
  struct Piece {
    int32_t target_piece = 0;
    int32_t source_piece = 0;
    uint64_t checksum = 0;
    PieceState state = PieceState::kUnknown;
  };
  Piece& At(int32_t index) { return pieces_[static_cast<size_t>(index - first_wanted_)]; }
  const Piece& At(int32_t index) const {
    return pieces_[static_cast<size_t>(index - first_wanted_)];
  }
  int32_t piece_count() const { return config_.block_count * config_.slices; }
  int32_t pieces_wanted() const { return static_cast<int32_t>(pieces_.size()); }
  void Send(MessageBody body) { actions_.push_back(TargetSend{std::move(body)}); }
  // Releases the source, unless it is lost, and reports.
  void End(const absl::Status& status, bool tell_source = true);
  void EndIfComplete();
  absl::Status CheckPiece(const ReadyPiece& piece) const;
  Landing LandingOf(const PieceRun& run) const;

  Config config_;
  State state_ = State::kOffered;
  TimePoint deadline_;  // of the worker's answer, then of the source's silence
  TimePoint next_heartbeat_;
  int32_t first_wanted_ = 0;   // piece
  std::vector<Piece> pieces_;  // those wanted
  int32_t scan_ = 0;           // no piece before it is kReady
  int32_t known_ = 0;          // pieces announced by the source
  int32_t landed_ = 0;
  bool committed_ = false;
  std::string commit_payload_;
  std::vector<PieceRun> in_flight_;
  TimePoint granted_at_, committed_at_, last_landed_at_;
  TimePoint moving_since_;  // while known_ > landed_
  Duration moving_{};
  std::vector<TargetAction> actions_;
};

}  // namespace baton::kv_transfer
