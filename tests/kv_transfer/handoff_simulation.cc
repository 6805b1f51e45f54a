#include "tests/kv_transfer/handoff_simulation.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;

constexpr Duration kLease = milliseconds(100), kReadyTimeout = milliseconds(100);
constexpr Duration kOfferTimeout = milliseconds(150), kTick = milliseconds(4);
constexpr Duration kLongestWork = milliseconds(120);  // until the commit, and until the answer
// By then both sides must have ended, whatever happened: every wait there is, one after the other.
constexpr Duration kEverythingIsOver =
    kLongestWork + 2 * kOfferTimeout + 4 * kLease + kReadyTimeout;
constexpr uint64_t kOverwritten = 0xDEAD;

}  // namespace

HandoffSimulation::HandoffSimulation(uint64_t seed, const Adversity& adversity)
    : seed_(seed), adversity_(adversity), random_(seed) {}

std::vector<int32_t> HandoffSimulation::SomeBlocks(int32_t count) {
  std::vector<int32_t> blocks(kSlabBlocks);
  for (int32_t i = 0; i < kSlabBlocks; ++i) blocks[static_cast<size_t>(i)] = i;
  // Half of the schedules have runs to merge.
  if (Dice() < 50) std::shuffle(blocks.begin(), blocks.end(), random_);
  const auto first =
      static_cast<ptrdiff_t>(random_() % static_cast<uint64_t>(kSlabBlocks - count + 1));
  return {blocks.begin() + first, blocks.begin() + first + count};
}

std::string HandoffSimulation::Run() {
  block_count_ = 1 + static_cast<int32_t>(random_() % 8);
  first_wanted_ =
      Dice() < 60 ? 0 : static_cast<int32_t>(random_() % static_cast<uint64_t>(block_count_ + 1));
  pulled_ = Dice() < 50;
  source_blocks_ = SomeBlocks(block_count_);
  target_blocks_ = SomeBlocks(block_count_ - first_wanted_);
  source_slab_.assign(kSlabBlocks, 0);
  target_slab_.assign(kSlabBlocks, 0);
  source_.emplace(
      SourceMachine::Config{.offer = {.tokens = block_count_ * 16,
                                      .block_count = block_count_,
                                      .lease_ms = static_cast<uint32_t>(kLease / milliseconds(1)),
                                      .block_hashes = {},
                                      .source_name = "",
                                      .source_address = ""},
                            .blocks = source_blocks_,
                            .lease = kLease,
                            .offer_timeout = kOfferTimeout},
      now_);
  PlanWorkers();
  PumpSource();
  At(now_ + kTick, [this] { Tick(); });
  while (!agenda_.empty() && violation_.empty()) {
    const auto next = agenda_.extract(agenda_.begin());
    now_ = next.key();
    next.mapped()();
  }
  CheckEnd();
  return violation_;
}

void HandoffSimulation::PlanWorkers() {
  // The prefill worker completes its blocks a few at a time, and commits.
  TimePoint when = now_;
  for (int32_t done = 0; done < block_count_;) {
    const auto upto =
        std::min<int32_t>(block_count_, done + 1 + static_cast<int32_t>(random_() % 3));
    when += Delay(kLongestWork / block_count_);
    At(when, [this, done, upto] {
      if (source_finish_.has_value()) return;
      for (int32_t i = done; i < upto; ++i) {
        source_slab_[static_cast<size_t>(source_blocks_[static_cast<size_t>(i)])] = Content(i);
      }
      source_->BlocksReady(upto);
      PumpSource();
    });
    done = upto;
  }
  At(when, [this] {
    source_->Commit("payload", now_);
    PumpSource();
  });
  if (Dice() < adversity_.source_cancels) {
    At(now_ + Delay(2 * kLongestWork), [this] {
      source_->Cancel(absl::CancelledError("by the worker"), now_);
      PumpSource();
    });
  }
  if (Dice() < adversity_.target_cancels) {
    At(now_ + Delay(2 * kLongestWork), [this] {
      if (!target_.has_value()) return;
      target_->Cancel(absl::CancelledError("by the worker"));
      PumpTarget();
    });
  }
  if (Dice() < adversity_.peer_lost) {
    At(now_ + Delay(2 * kLongestWork), [this] {
      source_->OnPeerDown(absl::UnavailableError("lost"), now_);
      PumpSource();
    });
    At(now_ + Delay(2 * kLongestWork), [this] {
      if (!target_.has_value()) return;
      target_->OnPeerDown(absl::UnavailableError("lost"));
      PumpTarget();
    });
  }
}

void HandoffSimulation::PumpSource() {
  while (true) {
    const BlockRun run = source_->NextToHash(1 + static_cast<int32_t>(random_() % 4));
    if (run.count == 0) break;
    std::vector<uint64_t> checksums;
    for (int32_t i = 0; i < run.count; ++i) {
      checksums.push_back(source_slab_[static_cast<size_t>(source_->source_block(run.first + i))]);
    }
    source_->Hashed(run, checksums, now_);
  }
  for (SourceAction& action : source_->TakeActions()) {
    if (source_finish_.has_value()) Violated("the source acted after its Finish");
    if (auto* send = std::get_if<SendMessage>(&action)) {
      Carry(/*to_target=*/true, std::move(send->body));
    } else if (const auto* run = std::get_if<SendRun>(&action)) {
      SendData(*run);
    } else {
      const auto& finish = std::get<Finish>(action);
      source_finish_ = finish.status;
      if (sends_outstanding_ > 0 && !finish.sends_given_up)
        Violated("blocks are let go while being sent");
      // The worker uses its blocks for something else at once.
      for (const int32_t block : source_blocks_)
        source_slab_[static_cast<size_t>(block)] = kOverwritten;
    }
  }
}

void HandoffSimulation::PumpTarget() {
  for (TargetAction& action : target_->TakeActions()) {
    if (auto* send = std::get_if<TargetSend>(&action)) {
      Carry(/*to_target=*/false, std::move(send->body));
      continue;
    }
    const auto& finish = std::get<TargetFinish>(action);
    if (target_finish_.has_value()) Violated("the target finished twice");
    if (finish.granted != granted_) Violated("the target does not know whether it was granted");
    target_finish_ = finish.status;
    if (!finish.status.ok()) continue;
    for (int32_t i = first_wanted_; i < block_count_; ++i) {
      const int32_t block = target_blocks_[static_cast<size_t>(i - first_wanted_)];
      if (target_slab_[static_cast<size_t>(block)] != Content(i)) {
        Violated(fmt::format("ok, but block {} holds something else", i));
      }
    }
    if (target_->commit_payload() != "payload") Violated("ok, but without the commit's payload");
  }
  if (!target_->HasRun()) return;
  if (!pulled_) {
    At(now_ + Delay(milliseconds(3)), [this] { CopyTurn(); });
    return;
  }
  PullMessage pull;
  while (const auto landing = target_->NextRun(1 + static_cast<int32_t>(random_() % 3))) {
    pull.runs.push_back(landing->run);
  }
  Carry(/*to_target=*/false, std::move(pull));
}

void HandoffSimulation::Carry(bool to_target, MessageBody body) {
  const bool lost = Dice() < adversity_.loss;
  const int copies = lost ? 0 : Dice() < adversity_.duplication ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    At(now_ + Delay(adversity_.longest_delay),
       [this, to_target, body] { to_target ? ToTarget(body) : ToSource(body); });
  }
}

void HandoffSimulation::ToTarget(const MessageBody& body) {
  if (std::holds_alternative<OfferMessage>(body)) {
    if (target_.has_value() || offer_fenced_) return;  // as OfferFence does
    target_.emplace(TargetMachine::Config{.block_count = block_count_,
                                          .source_slab_blocks = kSlabBlocks,
                                          .lease = kLease,
                                          .offer_timeout = kOfferTimeout,
                                          .ready_timeout = kReadyTimeout},
                    now_);
    const int dice = Dice();
    if (dice < adversity_.never_answers) return;
    const bool refuses = Dice() < adversity_.refuses;
    At(now_ + Delay(kLongestWork), [this, refuses] {
      if (refuses) {
        target_->Refuse(absl::ResourceExhaustedError("no blocks"));
      } else {
        granted_ = target_->state() == TargetMachine::State::kOffered;
        target_->Grant(first_wanted_, target_blocks_, now_);
      }
      PumpTarget();
    });
    return;
  }
  if (!target_.has_value()) {
    if (!std::holds_alternative<CancelMessage>(body)) return;
    offer_fenced_ = true;
    Carry(/*to_target=*/false, ReleaseMessage{absl::AbortedError("no such transfer")});
    return;
  }
  if (const auto* ready = std::get_if<ReadyMessage>(&body)) target_->OnReady(*ready, now_);
  if (const auto* beat = std::get_if<SourceHeartbeat>(&body))
    target_->OnSourceHeartbeat(*beat, now_);
  if (const auto* cancel = std::get_if<CancelMessage>(&body)) {
    if (target_finish_.has_value()) {
      Carry(/*to_target=*/false, ReleaseMessage{absl::AbortedError("no such transfer")});
    }
    target_->OnCancel(*cancel);
  }
  PumpTarget();
}

void HandoffSimulation::ToSource(const MessageBody& body) {
  if (const auto* grant = std::get_if<GrantMessage>(&body)) source_->OnGrant(*grant, now_);
  if (const auto* pull = std::get_if<PullMessage>(&body)) source_->OnPull(*pull, now_);
  if (std::holds_alternative<TargetHeartbeat>(body)) source_->OnTargetHeartbeat(now_);
  if (const auto* release = std::get_if<ReleaseMessage>(&body)) source_->OnRelease(*release, now_);
  PumpSource();
}

void HandoffSimulation::SendData(const SendRun& send) {
  ++sends_outstanding_;
  // The bytes are read at some time before OnSent, and come at some time after that.
  At(now_ + Delay(milliseconds(4)), [this, send] {
    std::vector<uint64_t> values;
    for (int32_t i = 0; i < send.run.count; ++i) {
      values.push_back(source_slab_[static_cast<size_t>(send.source_block + i)]);
      if (Dice() < adversity_.damage) values.back() ^= 1;
    }
    const int copies = Dice() < adversity_.loss ? 0 : Dice() < adversity_.duplication ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      At(now_ + Delay(adversity_.longest_delay), [this, run = send.run, values] {
        const auto landing = target_->InFlight(run);
        if (landing.has_value()) Land(*landing, values);
        PumpTarget();
      });
    }
    --sends_outstanding_;
    source_->OnSent();
    PumpSource();
  });
}

void HandoffSimulation::CopyTurn() {
  const auto landing = target_->NextRun(1 + static_cast<int32_t>(random_() % 3));
  if (landing.has_value()) {
    std::vector<uint64_t> values;
    for (int32_t i = 0; i < landing->run.count; ++i) {
      values.push_back(source_slab_[static_cast<size_t>(landing->source_block + i)]);
      if (Dice() < adversity_.damage) values.back() ^= 1;
    }
    Land(*landing, values);
  }
  PumpTarget();
}

void HandoffSimulation::Land(const Landing& landing, const std::vector<uint64_t>& values) {
  if (target_finish_.has_value()) Violated("a block was written after the target's Finish");
  for (size_t i = 0; i < values.size(); ++i) {
    target_slab_[static_cast<size_t>(landing.target_block) + i] = values[i];
  }
  target_->OnLanded(landing.run, values, now_);
}

void HandoffSimulation::Tick() {
  source_->OnTick(now_);
  PumpSource();
  if (target_.has_value()) {
    target_->OnTick(now_);
    PumpTarget();
  }
  const bool over =
      source_finish_.has_value() && (!target_.has_value() || target_finish_.has_value());
  if (!over && now_ - TimePoint{} > kEverythingIsOver) {
    Violated(fmt::format("after {} ms the source is in state {}, the target in {}",
                         (now_ - TimePoint{}) / milliseconds(1), static_cast<int>(source_->state()),
                         target_.has_value() ? static_cast<int>(target_->state()) : -1));
  }
  // An offer that is still on its way makes a target yet.
  if (!over || now_ - TimePoint{} < adversity_.longest_delay) {
    At(now_ + kTick, [this] { Tick(); });
  }
}

void HandoffSimulation::CheckEnd() {
  if (!violation_.empty()) return;
  if (!source_finish_.has_value()) Violated("the source did not end");
  if (target_.has_value() && !target_finish_.has_value()) Violated("the target did not end");
  if (source_ok() && !target_ok()) Violated("the source believes in a success that was none");
}

}  // namespace baton::kv_transfer
