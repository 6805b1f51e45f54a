#include "kv_transfer/source_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace baton::kv_transfer {
namespace {

// A peer that asks for heartbeats every microsecond, or never, does not get them.
constexpr uint32_t kLeastHeartbeatMs = 1;
constexpr uint32_t kMostHeartbeatMs = 60'000;

}  // namespace

SourceMachine::SourceMachine(Config config, TimePoint now)
    : config_(std::move(config)),
      deadline_(now + config_.offer_timeout),
      next_heartbeat_(deadline_),
      complete_(config_.blocks.size()),
      pieces_(config_.blocks.size() * static_cast<size_t>(config_.offer.slices)) {
  BATON_CHECK(config_.blocks.size() == static_cast<size_t>(config_.offer.block_count),
              "the service checked the offer");
  Send(config_.offer);
}

void SourceMachine::SlicesReady(int32_t count, int32_t slices) {
  const int32_t end = std::min(count, block_count());
  for (int32_t block = whole_; block < end; ++block) {
    int32_t& complete = complete_[static_cast<size_t>(block)];
    for (; complete < std::min(slices, this->slices()); ++complete) {
      if (block >= first_wanted_) order_.push_back(block * this->slices() + complete);
    }
  }
  while (whole_ < end && complete_[static_cast<size_t>(whole_)] == this->slices()) ++whole_;
}

void SourceMachine::Commit(std::string payload, TimePoint now) {
  if (committed_) return;
  committed_ = true;
  BlocksReady(block_count());
  commit_payload_ = std::move(payload);
  Announce(now);
}

void SourceMachine::Cancel(const absl::Status& why, TimePoint now) {
  if (!Live()) return;
  outcome_ = why.ok() ? absl::CancelledError("the source gave the transfer up") : why;
  Send(CancelMessage{outcome_});
  state_ = State::kCancelling;
  deadline_ = now + config_.lease;
}

const BlockHash* SourceMachine::content(int32_t index) const {
  const auto block = static_cast<size_t>(index / slices());
  return block < config_.offer.block_hashes.size() ? &config_.offer.block_hashes[block] : nullptr;
}

std::span<const int32_t> SourceMachine::ToHash() const {
  if (!Live()) return {};
  return std::span(order_).subspan(checksums_.size());
}

void SourceMachine::Hashed(std::span<const uint64_t> checksums, TimePoint now) {
  BATON_CHECK(checksums.size() <= order_.size() - checksums_.size(),
              "checksums come for what ToHash named");
  if (!Live()) return;
  checksums_.insert(checksums_.end(), checksums.begin(), checksums.end());
  Announce(now);
}

bool SourceMachine::CommitIsDue() const {
  return committed_ && !commit_announced_ && announced_ == pieces_wanted();
}

void SourceMachine::Announce(TimePoint now) {
  if (state_ != State::kStreaming) return;
  while (handled_ < checksums_.size() || CommitIsDue()) {
    ReadyMessage ready;
    for (; handled_ < checksums_.size() && ready.pieces.size() < kMaxReadyPieces; ++handled_) {
      const int32_t index = order_[handled_];
      if (index < first_wanted_ * slices()) continue;  // hashed before the Grant
      ready.pieces.push_back({index, source_piece(index), checksums_[handled_]});
      pieces_[static_cast<size_t>(index)] = PieceState::kAnnounced;
    }
    announced_ += static_cast<int32_t>(ready.pieces.size());
    if (CommitIsDue()) {
      ready.last = true;
      ready.commit_payload = commit_payload_;
      commit_announced_ = true;
    }
    if (ready.pieces.empty() && !ready.last) return;
    Send(std::move(ready));
    next_heartbeat_ = now + heartbeat_;
  }
}

void SourceMachine::OnGrant(const GrantMessage& grant, TimePoint now) {
  if (state_ != State::kOffered) return;  // a second copy, or after a cancel
  if (grant.first_block_wanted > block_count()) {
    const auto why =
        absl::InternalError(fmt::format("the target wants blocks from {}, offered are {}",
                                        grant.first_block_wanted, block_count()));
    Send(CancelMessage{why});
    Drain(why, now);
    return;
  }
  state_ = State::kStreaming;
  deadline_ = now + config_.lease;
  heartbeat_ = std::chrono::milliseconds(
      std::clamp(grant.heartbeat_ms, kLeastHeartbeatMs, kMostHeartbeatMs));
  next_heartbeat_ = now + heartbeat_;
  first_wanted_ = grant.first_block_wanted;
  const auto not_hashed = order_.begin() + static_cast<int64_t>(checksums_.size());
  order_.erase(std::remove_if(not_hashed, order_.end(),
                              [this](int32_t index) { return index / slices() < first_wanted_; }),
               order_.end());
  Announce(now);
}

absl::Status SourceMachine::CheckPull(const PieceRun& run) const {
  const auto total = static_cast<int32_t>(pieces_.size());
  for (int32_t i = run.first; i < run.first + run.count; ++i) {
    if (i >= total || pieces_[static_cast<size_t>(i)] == PieceState::kUnannounced) {
      return absl::InternalError(
          fmt::format("the target pulls piece {} of {}, which was not announced", i, total));
    }
    if (pieces_[static_cast<size_t>(i)] == PieceState::kSent) {
      return absl::InternalError(fmt::format("the target pulls piece {} twice", i));
    }
    if (source_piece(i) != source_piece(run.first) + i - run.first) {
      return absl::InternalError(
          fmt::format("the target pulls pieces [{}, {}) as one run, which is "
                      "not contiguous at the source",
                      run.first, run.first + run.count));
    }
  }
  return absl::OkStatus();
}

void SourceMachine::OnPull(const PullMessage& pull, TimePoint now) {
  if (state_ != State::kStreaming) return;
  deadline_ = now + config_.lease;
  for (const PieceRun& run : pull.runs) {
    if (const absl::Status status = CheckPull(run); !status.ok()) {
      Cancel(status, now);
      return;
    }
    std::fill_n(pieces_.begin() + run.first, run.count, PieceState::kSent);
    ++sends_outstanding_;
    pieces_pulled_ += run.count;
    actions_.push_back(SendRun{run, source_piece(run.first), pull.way});
  }
}

void SourceMachine::OnTargetHeartbeat(TimePoint now) {
  if (state_ == State::kStreaming) deadline_ = now + config_.lease;
}

void SourceMachine::OnRelease(const ReleaseMessage& release, TimePoint now) {
  if (state_ == State::kCancelling) {
    Drain(outcome_, now);
  } else if (Live() && release.status.ok() && !commit_announced_) {
    Drain(absl::InternalError(fmt::format("the target released after {} of {} pieces, uncommitted",
                                          announced_, pieces_wanted())),
          now);
  } else if (Live()) {
    Drain(release.status, now);
  }
}

void SourceMachine::OnSent() {
  if (state_ == State::kDone) return;  // finished without waiting for it
  BATON_CHECK(sends_outstanding_ > 0, "each SendRun ends once");
  --sends_outstanding_;
  FinishIfDrained();
}

void SourceMachine::OnPeerDown(const absl::Status& why, TimePoint now) {
  if (Live()) {
    Drain(why, now);
  } else if (state_ == State::kCancelling) {
    Drain(outcome_, now);
  }
}

void SourceMachine::OnTick(TimePoint now) {
  if (state_ == State::kStreaming && now >= next_heartbeat_) {
    Send(SourceHeartbeat{announced_, commit_announced_});
    next_heartbeat_ = now + heartbeat_;
  }
  if (now < deadline_ || state_ == State::kDone) return;
  switch (state_) {
    case State::kOffered: {
      const auto why = absl::DeadlineExceededError(
          fmt::format("no Grant within {:.1f} s of the Offer", Seconds(config_.offer_timeout)));
      Send(CancelMessage{why});
      Drain(why, now);
      break;
    }
    case State::kStreaming: {
      const auto why = absl::DeadlineExceededError(fmt::format(
          "no sign of life from the target for the lease of {:.1f} s", Seconds(config_.lease)));
      Send(CancelMessage{why});
      Drain(why, now);
      break;
    }
    case State::kCancelling:
      Drain(outcome_, now);
      break;
    case State::kDraining:
      state_ = State::kDone;
      actions_.push_back(Finish{outcome_, /*sends_given_up=*/true});
      break;
    case State::kDone:
      break;
  }
}

void SourceMachine::Drain(absl::Status status, TimePoint now) {
  outcome_ = std::move(status);
  state_ = State::kDraining;
  deadline_ = now + config_.lease;
  FinishIfDrained();
}

void SourceMachine::FinishIfDrained() {
  if (state_ != State::kDraining || sends_outstanding_ > 0) return;
  state_ = State::kDone;
  actions_.push_back(Finish{outcome_});
}

}  // namespace baton::kv_transfer
