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
      checksums_(config_.blocks.size()),
      sent_(config_.blocks.size()) {
  BATON_CHECK(config_.blocks.size() == static_cast<size_t>(config_.offer.block_count),
              "the service checked the offer");
  Send(config_.offer);
}

void SourceMachine::BlocksReady(int32_t count) {
  ready_ = std::max(ready_, std::min(count, block_count()));
}

void SourceMachine::Commit(std::string payload, TimePoint now) {
  if (committed_) return;
  committed_ = true;
  ready_ = block_count();
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
  const auto place = static_cast<size_t>(index);
  return place < config_.offer.block_hashes.size() ? &config_.offer.block_hashes[place] : nullptr;
}

BlockRun SourceMachine::NextToHash(int32_t most) const {
  if (!Live()) return {};
  return {hashed_, std::min(most, ready_ - hashed_)};
}

void SourceMachine::Hashed(const BlockRun& run, std::span<const uint64_t> checksums,
                           TimePoint now) {
  BATON_CHECK(run.first == hashed_ && checksums.size() == static_cast<size_t>(run.count) &&
                  run.count <= ready_ - hashed_,
              "checksums come for what NextToHash named");
  if (!Live()) return;
  std::ranges::copy(checksums, checksums_.begin() + run.first);
  hashed_ += run.count;
  Announce(now);
}

bool SourceMachine::CommitIsDue() const {
  return committed_ && !commit_announced_ && announced_ == block_count();
}

void SourceMachine::Announce(TimePoint now) {
  if (state_ != State::kStreaming) return;
  while (announced_ < hashed_ || CommitIsDue()) {
    const int32_t count = std::min(kMaxReadyBlocks, hashed_ - announced_);
    ReadyMessage ready{.first = announced_, .blocks = {}, .last = false, .commit_payload = {}};
    ready.blocks.reserve(static_cast<size_t>(count));
    for (int32_t i = announced_; i < announced_ + count; ++i) {
      ready.blocks.push_back({source_block(i), checksums_[static_cast<size_t>(i)]});
    }
    announced_ += count;
    if (CommitIsDue()) {
      ready.last = true;
      ready.commit_payload = commit_payload_;
      commit_announced_ = true;
    }
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
  first_wanted_ = announced_ = grant.first_block_wanted;
  hashed_ = std::max(hashed_, first_wanted_);
  ready_ = std::max(ready_, first_wanted_);
  Announce(now);
}

absl::Status SourceMachine::CheckPull(const BlockRun& run) const {
  if (run.first < first_wanted_ || run.first > announced_ || run.count > announced_ - run.first) {
    return absl::InternalError(
        fmt::format("the target pulls blocks [{}, {}), announced are [{}, {})", run.first,
                    run.first + run.count, first_wanted_, announced_));
  }
  for (int32_t i = 0; i < run.count; ++i) {
    if (sent_[static_cast<size_t>(run.first + i)]) {
      return absl::InternalError(fmt::format("the target pulls block {} twice", run.first + i));
    }
    if (source_block(run.first + i) != source_block(run.first) + i) {
      return absl::InternalError(
          fmt::format("the target pulls blocks [{}, {}) as one run, which is "
                      "not contiguous at the source",
                      run.first, run.first + run.count));
    }
  }
  return absl::OkStatus();
}

void SourceMachine::OnPull(const PullMessage& pull, TimePoint now) {
  if (state_ != State::kStreaming) return;
  deadline_ = now + config_.lease;
  for (const BlockRun& run : pull.runs) {
    if (const absl::Status status = CheckPull(run); !status.ok()) {
      Cancel(status, now);
      return;
    }
    std::fill_n(sent_.begin() + run.first, run.count, true);
    ++sends_outstanding_;
    blocks_pulled_ += run.count;
    actions_.push_back(SendRun{run, source_block(run.first)});
  }
}

void SourceMachine::OnTargetHeartbeat(TimePoint now) {
  if (state_ == State::kStreaming) deadline_ = now + config_.lease;
}

void SourceMachine::OnRelease(const ReleaseMessage& release, TimePoint now) {
  if (state_ == State::kCancelling) {
    Drain(outcome_, now);
  } else if (Live() && release.status.ok() && !commit_announced_) {
    Drain(absl::InternalError(fmt::format("the target released after {} of {} blocks, uncommitted",
                                          announced_, block_count())),
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
