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
  first_wanted_ = scan_ = first_block_wanted;
  blocks_.resize(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) blocks_[i].target_block = blocks[i];
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

Landing TargetMachine::LandingOf(const BlockRun& run) const {
  const Block& block = At(run.first);
  return {run, block.source_block, block.target_block};
}

bool TargetMachine::HasRun() {
  if (state_ != State::kPulling) return false;
  while (scan_ < config_.block_count && At(scan_).state != BlockState::kReady) ++scan_;
  return scan_ < config_.block_count;
}

std::optional<Landing> TargetMachine::NextRun(int32_t most) {
  if (most < 1 || !HasRun()) return std::nullopt;
  const BlockRun run_at_scan{scan_, 1};
  const Landing start = LandingOf(run_at_scan);
  int32_t count = 0;
  while (count < most && scan_ < config_.block_count) {
    Block& block = At(scan_);
    if (block.state != BlockState::kReady || block.source_block != start.source_block + count ||
        block.target_block != start.target_block + count) {
      break;
    }
    block.state = BlockState::kInFlight;
    ++count;
    ++scan_;
  }
  in_flight_.push_back({start.run.first, count});
  return LandingOf(in_flight_.back());
}

std::optional<Landing> TargetMachine::InFlight(const BlockRun& run) const {
  if (std::find(in_flight_.begin(), in_flight_.end(), run) == in_flight_.end()) return std::nullopt;
  return LandingOf(run);
}

void TargetMachine::OnLanded(const BlockRun& run, std::span<const uint64_t> checksums,
                             TimePoint now) {
  const auto found = std::find(in_flight_.begin(), in_flight_.end(), run);
  BATON_CHECK(found != in_flight_.end() && checksums.size() == static_cast<size_t>(run.count),
              "only runs in flight land");
  in_flight_.erase(found);
  for (int32_t i = 0; i < run.count; ++i) {
    Block& block = At(run.first + i);
    const uint64_t found_checksum = checksums[static_cast<size_t>(i)];
    if (found_checksum != block.checksum) {
      End(absl::DataLossError(
          fmt::format("block {} of {} came with checksum {:016x}, the source announced {:016x}",
                      run.first + i, config_.block_count, found_checksum, block.checksum)));
      return;
    }
    block.state = BlockState::kLanded;
  }
  landed_ += run.count;
  if (landed_ == known_) moving_ += now - moving_since_;
  last_landed_at_ = now;
  deadline_ = now + config_.ready_timeout;
  EndIfComplete();
}

void TargetMachine::OnReady(const ReadyMessage& ready, TimePoint now) {
  if (state_ != State::kPulling) return;
  const auto count = static_cast<int32_t>(ready.blocks.size());
  if (ready.first < first_wanted_ || ready.first + count > config_.block_count ||
      (ready.last && ready.first + count != config_.block_count)) {
    End(absl::InternalError(
        fmt::format("the source announced blocks [{}, {}){}, wanted are [{}, {})", ready.first,
                    ready.first + count, ready.last ? " as the last" : "", first_wanted_,
                    config_.block_count)));
    return;
  }
  if (known_ == landed_) moving_since_ = now;
  for (int32_t i = 0; i < count; ++i) {
    const ReadyBlock& announced = ready.blocks[static_cast<size_t>(i)];
    if (announced.source_block >= config_.source_slab_blocks) {
      End(absl::InternalError(fmt::format("the source named block {} of its slab, which has {}",
                                          announced.source_block, config_.source_slab_blocks)));
      return;
    }
    Block& block = At(ready.first + i);
    if (block.state != BlockState::kUnknown) continue;  // a second copy of the message
    block = {block.target_block, announced.source_block, announced.checksum, BlockState::kReady};
    ++known_;
  }
  scan_ = std::min(scan_, ready.first);
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
  const bool gap =
      heartbeat.blocks_announced - first_wanted_ > known_ || (heartbeat.committed && !committed_);
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
          "nothing new from the source for {:.1f} s: {} of {} blocks announced, {} verified, {} "
          "pulls unanswered, commit {}",
          Seconds(config_.ready_timeout), known_, blocks_wanted(), landed_, in_flight_.size(),
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
  if (committed_ && landed_ == blocks_wanted()) End(absl::OkStatus());
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
