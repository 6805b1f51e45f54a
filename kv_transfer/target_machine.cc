#include "kv_transfer/target_machine.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"

namespace baton::kv_transfer {
namespace {

constexpr int kHeartbeatsPerTimeout = 5;  // four may be lost or late

}  // namespace

TargetMachine::TargetMachine(const Config& config, TimePoint now)
    : config_(config), deadline_(now + config.offer_timeout), next_heartbeat_(deadline_) {}

void TargetMachine::Grant(int32_t first_block_wanted, std::vector<int32_t> blocks, TimePoint now) {
  if (state_ != State::kOffered) return;
  state_ = State::kPulling;
  granted_at_ = last_landed_at_ = now;
  if (first_block_wanted < 0 || first_block_wanted > config_.block_count ||
      blocks.size() != static_cast<size_t>(config_.block_count - first_block_wanted)) {
    End(absl::InvalidArgumentError(fmt::format("granted {} blocks from block {} of an offer of {}",
                                               blocks.size(), first_block_wanted,
                                               config_.block_count)));
    return;
  }
  first_wanted_ = scan_ = first_block_wanted * config_.slices;
  pieces_.reserve(blocks.size() * static_cast<size_t>(config_.slices));
  for (const int32_t block : blocks) {
    for (int32_t slice = 0; slice < config_.slices; ++slice) {
      pieces_.push_back({.target_piece = block * config_.slices + slice});
    }
  }
  deadline_ = now + config_.ready_timeout;
  next_heartbeat_ = now + config_.lease / kHeartbeatsPerTimeout;
  const auto interval = std::chrono::duration_cast<std::chrono::milliseconds>(
      config_.ready_timeout / kHeartbeatsPerTimeout);
  Send(GrantMessage{first_block_wanted, static_cast<uint32_t>(interval.count())});
}

void TargetMachine::Refuse(const absl::Status& why) {
  if (state_ != State::kOffered) return;
  End(why.ok() ? absl::UnavailableError("the target refused") : why);
}

void TargetMachine::Cancel(const absl::Status& why) { End(why); }

Landing TargetMachine::LandingOf(const PieceRun& run) const {
  const Piece& piece = At(run.first);
  return {run, piece.source_piece, piece.target_piece};
}

bool TargetMachine::HasRun() {
  if (state_ != State::kPulling) return false;
  while (scan_ < piece_count() && At(scan_).state != PieceState::kReady) ++scan_;
  return scan_ < piece_count();
}

std::optional<Landing> TargetMachine::NextRun(int32_t most) {
  if (most < 1 || !HasRun()) return std::nullopt;
  const PieceRun run_at_scan{scan_, 1};
  const Landing start = LandingOf(run_at_scan);
  int32_t count = 0;
  while (count < most && scan_ < piece_count()) {
    Piece& piece = At(scan_);
    if (piece.state != PieceState::kReady || piece.source_piece != start.source_piece + count ||
        piece.target_piece != start.target_piece + count) {
      break;
    }
    piece.state = PieceState::kInFlight;
    ++count;
    ++scan_;
  }
  in_flight_.push_back({start.run.first, count});
  return LandingOf(in_flight_.back());
}

std::optional<Landing> TargetMachine::InFlight(const PieceRun& run) const {
  if (std::find(in_flight_.begin(), in_flight_.end(), run) == in_flight_.end()) return std::nullopt;
  return LandingOf(run);
}

void TargetMachine::OnLanded(const PieceRun& run, std::span<const uint64_t> checksums,
                             TimePoint now) {
  const auto found = std::find(in_flight_.begin(), in_flight_.end(), run);
  BATON_CHECK(found != in_flight_.end() && checksums.size() == static_cast<size_t>(run.count),
              "only runs in flight land");
  in_flight_.erase(found);
  for (int32_t i = 0; i < run.count; ++i) {
    Piece& piece = At(run.first + i);
    const uint64_t found_checksum = checksums[static_cast<size_t>(i)];
    if (found_checksum != piece.checksum) {
      End(absl::DataLossError(fmt::format(
          "slice {} of block {} of {} came with checksum {:016x}, the source announced {:016x}",
          (run.first + i) % config_.slices, (run.first + i) / config_.slices, config_.block_count,
          found_checksum, piece.checksum)));
      return;
    }
    piece.state = PieceState::kLanded;
  }
  landed_ += run.count;
  if (landed_ == known_) moving_ += now - moving_since_;
  last_landed_at_ = now;
  deadline_ = now + config_.ready_timeout;
  EndIfComplete();
}

absl::Status TargetMachine::CheckPiece(const ReadyPiece& piece) const {
  if (piece.index < first_wanted_ || piece.index >= piece_count()) {
    return absl::InternalError(fmt::format("the source announced piece {}, wanted are [{}, {})",
                                           piece.index, first_wanted_, piece_count()));
  }
  if (piece.source_piece / config_.slices >= config_.source_slab_blocks) {
    return absl::InternalError(fmt::format("the source named block {} of its slab, which has {}",
                                           piece.source_piece / config_.slices,
                                           config_.source_slab_blocks));
  }
  return absl::OkStatus();
}

void TargetMachine::OnReady(const ReadyMessage& ready, TimePoint now) {
  if (state_ != State::kPulling) return;
  if (known_ == landed_) moving_since_ = now;
  for (const ReadyPiece& announced : ready.pieces) {
    if (const absl::Status status = CheckPiece(announced); !status.ok()) {
      End(status);
      return;
    }
    Piece& piece = At(announced.index);
    if (piece.state != PieceState::kUnknown) continue;  // a second copy of the message
    piece = {piece.target_piece, announced.source_piece, announced.checksum, PieceState::kReady};
    ++known_;
    scan_ = std::min(scan_, announced.index);
  }
  if (ready.last && !committed_) {
    committed_ = true;
    committed_at_ = now;
    commit_payload_ = ready.commit_payload;
  }
  deadline_ = now + config_.ready_timeout;
  EndIfComplete();
}

void TargetMachine::OnSourceHeartbeat(const SourceHeartbeat& heartbeat, TimePoint now) {
  if (state_ != State::kPulling) return;
  // A source that lives but whose messages or data got lost is as good as silent.
  const bool gap = heartbeat.pieces_announced > known_ || (heartbeat.committed && !committed_);
  if (!gap && in_flight_.empty()) deadline_ = now + config_.ready_timeout;
}

void TargetMachine::OnCancel(const CancelMessage& cancel) {
  End(absl::AbortedError(
      fmt::format("the source gave up: {}",
                  std::string_view(cancel.why.message().data(), cancel.why.message().size()))));
}

void TargetMachine::OnPeerDown(const absl::Status& why) { End(why, /*tell_source=*/false); }

void TargetMachine::OnTick(TimePoint now) {
  if (state_ == State::kDone) return;
  if (now >= deadline_) {
    if (state_ == State::kOffered) {
      End(absl::DeadlineExceededError(fmt::format("the offer was not answered within {:.1f} s",
                                                  Seconds(config_.offer_timeout))));
    } else {
      End(absl::DeadlineExceededError(fmt::format(
          "nothing new from the source for {:.1f} s: {} of {} pieces announced, {} verified, {} "
          "pulls unanswered, commit {}",
          Seconds(config_.ready_timeout), known_, pieces_wanted(), landed_, in_flight_.size(),
          committed_ ? "here" : "missing")));
    }
    return;
  }
  if (state_ == State::kPulling && now >= next_heartbeat_) {
    Send(TargetHeartbeat{});
    next_heartbeat_ = now + config_.lease / kHeartbeatsPerTimeout;
  }
}

void TargetMachine::EndIfComplete() {
  if (committed_ && landed_ == pieces_wanted()) End(absl::OkStatus());
}

void TargetMachine::End(const absl::Status& status, bool tell_source) {
  if (state_ == State::kDone) return;
  const bool granted = state_ == State::kPulling;
  state_ = State::kDone;
  in_flight_.clear();
  if (tell_source) Send(ReleaseMessage{status});
  actions_.push_back(TargetFinish{status, granted});
}

}  // namespace baton::kv_transfer
