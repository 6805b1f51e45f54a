#include "tests/kv_transfer/simulated_worker.h"

#include <fmt/format.h>

#include <cstring>

namespace baton::kv_transfer {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Duration kOfferTimeout = milliseconds(150), kReadyTimeout = milliseconds(100);
constexpr std::string_view kModel = "a simulated model";

const HandoffOptions& OptionsFor(bool pulled) {
  const auto make = [](TransportKind kind) {
    HandoffOptions options;
    options.transport = kind;
    options.layout = {.layers = SimulatedWorker::kLayers,
                      .kv_heads = 1,
                      .head_dim = 2,
                      .block_tokens = 1,
                      .dtype = kernels::KvDType::kF32};
    options.model_fingerprint = kModel;
    options.block_count = SimulatedWorker::kSlabBlocks;
    options.least_slice_bytes = options.layout.layer_bytes();
    options.lease = kSimulatedLease;
    options.offer_timeout = kOfferTimeout;
    options.ready_timeout = kReadyTimeout;
    options.measure_paths = false;  // in real time, which a schedule must not depend on
    return options;
  };
  static const HandoffOptions by_pull = make(TransportKind::kUcx);
  static const HandoffOptions mapped = make(TransportKind::kShm);
  return pulled ? by_pull : mapped;
}

// What block `index` of this attempt's prompt holds, unless it is of a cached prefix: nobody else's
// block does.
uint64_t Stamp(const Attempt& attempt, int32_t index) {
  return Mix(Mix(attempt.request.low ^ (uint64_t{attempt.epoch} << 32)) +
             static_cast<uint64_t>(index));
}

BlockHash HashOf(uint64_t stamp) {
  BlockHash hash{};
  std::memcpy(hash.data(), &stamp, sizeof stamp);
  return hash;
}

// What a layer of a block with this stamp is.
using LayerWords = std::array<uint64_t, 2>;
LayerWords WordsOf(int32_t layer, uint64_t stamp) {
  const uint64_t mixed = stamp + static_cast<uint64_t>(layer);
  return {mixed, ~mixed};
}

std::string Payload(const Attempt& attempt) { return "first token of " + ToString(attempt); }

}  // namespace

void SimulatedWorker::Start() {
  static const std::string layout = OptionsFor(true).layout.ToString();
  const HandoffOptions& options = OptionsFor(stage_.pulled);
  own_ = {.incarnation = (stage_.agenda.Random() & ~uint64_t{1}) | static_cast<uint64_t>(host_),
          .name = host_ == 0 ? "worker-0" : "worker-1",
          .family = "simulated",
          .endpoint = "",
          .layout = layout,
          .model_fingerprint = std::string(kModel),
          .block_count = options.block_count,
          .block_bytes = options.layout.block_bytes(),
          .slab_file = std::nullopt};
  transport_ = std::make_unique<SimulatedTransport>(stage_.network, stage_.agenda, own_.incarnation,
                                                    static_cast<size_t>(own_.slab_bytes()));
  loop_ = std::make_unique<HandoffLoop>(
      *transport_, stage_.agenda.clock(), options, own_, *EncodeAddress(own_),
      [this](HandoffEvent event) { TakeEvent(std::move(event)); });
  ending_ = step_planned_ = false;
  cached_ = {};
  for (int32_t block = 0; block < kSlabBlocks; ++block) {
    At(block).owner = Owner::kNobody;
    Write(block, stage_.agenda.Random());
  }
  stage_.network.Plug(*transport_, [this] { Step(); });
}

void SimulatedWorker::Gone() {
  for (Handoff& handoff : stage_.handoffs) {
    if (handoff.source == incarnation() && !handoff.source_end.has_value()) {
      handoff.source_lost = true;
      stage_.on_source_end(handoff);
    }
    if (handoff.target == incarnation() && !handoff.target_end.has_value()) {
      handoff.target_lost = true;
    }
  }
  stage_.network.Unplug(host_);
  loop_.reset();
  transport_.reset();
  events_.clear();
}

void SimulatedWorker::Crash() {
  stage_.agenda.Trace([&] { return fmt::format("{:x} crashes", incarnation()); });
  Gone();
}

void SimulatedWorker::Shutdown() {
  stage_.agenda.Trace([&] { return fmt::format("{:x} shuts down", incarnation()); });
  ending_ = true;
  loop_->EndAll();
  HandleEvents();
  if (loop_->active() || loop_->active_targets() != 0) {
    stage_.Violated("a service that has shut down still takes part in transfers");
  }
  for (const Handoff& handoff : stage_.handoffs) {
    if ((handoff.source == incarnation() && !handoff.SourceOver()) ||
        (handoff.target == incarnation() && !handoff.TargetOver())) {
      stage_.Violated("a service shut down without an outcome of " + ToString(handoff.attempt));
    }
  }
  Gone();
}

// ---- the process ----

void SimulatedWorker::Later(Duration delay, Handoff& handoff,
                            void (SimulatedWorker::*what)(Handoff&)) {
  struct Task {
    SimulatedWorker* worker;
    Handoff* handoff;
    uint64_t incarnation;
    void (SimulatedWorker::*what)(Handoff&);
  };
  stage_.agenda.After(delay, [task = Task{this, &handoff, incarnation(), what}] {
    if (task.worker->running() && task.worker->incarnation() == task.incarnation) {
      (task.worker->*task.what)(*task.handoff);
    }
  });
}

void SimulatedWorker::StepLater(Duration delay) {
  if (std::exchange(step_planned_, true)) return;
  stage_.agenda.After(delay, [this, process = incarnation()] {
    if (!running() || incarnation() != process) return;
    step_planned_ = false;
    Step();
  });
}

void SimulatedWorker::Step() {
  if (!running()) return;  // one that ends steps by itself
  bool busy = true;
  // Now and then what there is to hash and copy has to wait.
  while (busy && !stage_.agenda.Chance(15)) busy = loop_->Step();
  HandleEvents();
  if (busy) {
    step_planned_ = false;
    StepLater(stage_.agenda.Delay(microseconds(500)));
  } else if (loop_->active()) {
    StepLater(milliseconds(6) + stage_.agenda.Delay(milliseconds(12)));
  }
}

void SimulatedWorker::TakeEvent(HandoffEvent event) {
  if (const auto* offer = std::get_if<OfferArrived>(&event)) {
    if (stage_.network.Released(offer->offer.attempt, incarnation())) {
      stage_.Violated("an offer that was declared over: " + ToString(offer->offer.attempt));
    }
  }
  events_.push_back(std::move(event));
}

void SimulatedWorker::HandleEvents() {
  for (const HandoffEvent& event : std::exchange(events_, {})) {
    if (const auto* offer = std::get_if<OfferArrived>(&event)) OnOffer(offer->offer);
    if (const auto* done = std::get_if<TargetDone>(&event)) OnTargetDone(*done);
    if (const auto* done = std::get_if<SourceDone>(&event)) OnSourceDone(*done);
  }
}

Handoff* SimulatedWorker::Find(const Attempt& attempt) {
  for (Handoff& handoff : stage_.handoffs) {
    if (handoff.attempt == attempt) return &handoff;
  }
  return nullptr;
}

// ---- its memory ----

std::span<std::byte> SimulatedWorker::Bytes(int32_t block) const {
  const auto bytes = static_cast<size_t>(own_.block_bytes);
  return transport_->slab().subspan(static_cast<size_t>(block) * bytes, bytes);
}

void SimulatedWorker::WriteLayer(int32_t block, int32_t layer, uint64_t stamp) {
  At(block).stamps[static_cast<size_t>(layer)] = stamp;
  const LayerWords words = WordsOf(layer, stamp);
  std::memcpy(Bytes(block).data() + layer * sizeof words, words.data(), sizeof words);
}

void SimulatedWorker::Write(int32_t block, uint64_t stamp) {
  for (int32_t layer = 0; layer < kLayers; ++layer) WriteLayer(block, layer, stamp);
}

bool SimulatedWorker::LayerHolds(int32_t block, int32_t layer, uint64_t stamp) const {
  const LayerWords words = WordsOf(layer, stamp);
  return std::memcmp(Bytes(block).data() + layer * sizeof words, words.data(), sizeof words) == 0;
}

bool SimulatedWorker::Holds(int32_t block, uint64_t stamp) const {
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    if (!LayerHolds(block, layer, stamp)) return false;
  }
  return true;
}

std::vector<int32_t> SimulatedWorker::Allocate(int32_t count, Owner owner) {
  CheckMemory();
  std::vector<int32_t> found;
  const auto start = static_cast<int32_t>(stage_.agenda.Below(kSlabBlocks));
  // Upwards, so that there are runs to merge, or downwards.
  const int32_t step = stage_.agenda.Chance(50) ? 1 : kSlabBlocks - 1;
  for (int32_t i = 0; i < kSlabBlocks && static_cast<int32_t>(found.size()) < count; ++i) {
    const int32_t block = (start + i * step) % kSlabBlocks;
    if (At(block).owner == Owner::kNobody) found.push_back(block);
  }
  if (static_cast<int32_t>(found.size()) < count) return {};
  for (const int32_t block : found) At(block).owner = owner;
  return found;
}

// They are used for something else at once.
void SimulatedWorker::Free(const std::vector<int32_t>& blocks) {
  for (const int32_t block : blocks) {
    At(block).owner = Owner::kNobody;
    Write(block, stage_.agenda.Random());
  }
}

void SimulatedWorker::CheckMemory() {
  for (int32_t block = 0; block < kSlabBlocks; ++block) {
    if (At(block).owner == Owner::kLoop) continue;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      if (LayerHolds(block, layer, At(block).stamps[static_cast<size_t>(layer)])) continue;
      stage_.Violated(fmt::format("block {} of {} was written by somebody else than its owner",
                                  block, own_.name));
    }
  }
}

void SimulatedWorker::CheckIdle() {
  if (!running()) return;
  DropCachedPrefix();
  CheckMemory();
  if (loop_->active() || loop_->active_targets() != 0) {
    stage_.Violated(fmt::format("{} still takes part in transfers", own_.name));
  }
  for (int32_t block = 0; block < kSlabBlocks; ++block) {
    if (At(block).owner != Owner::kNobody) {
      stage_.Violated(fmt::format("block {} of {} was not given back", block, own_.name));
    }
  }
}

// ---- as a source ----

bool SimulatedWorker::Offer(Handoff& handoff, int32_t block_count, const PeerAddress& target) {
  handoff.source = incarnation();
  handoff.target = target.incarnation;
  if (!TakeSourceBlocks(handoff, block_count)) return false;
  stage_.agenda.Trace([&] {
    return fmt::format("{:x} offers {}: {} blocks", incarnation(), ToString(handoff.attempt),
                       block_count);
  });
  loop_->TakeTime();
  std::vector<BlockHash> hashes;
  for (const uint64_t stamp : handoff.stamps) hashes.push_back(HashOf(stamp));
  loop_->Offer({.attempt = handoff.attempt,
                .tokens = block_count,
                .block_hashes = std::move(hashes),
                .source_name = own_.name},
               target, handoff.source_blocks);
  if (handoff.blocks_ready > 0) loop_->BlocksReady(handoff.attempt, handoff.blocks_ready);
  Later(Work(milliseconds(8)), handoff, &SimulatedWorker::Compute);
  Step();
  return true;
}

bool SimulatedWorker::TakeSourceBlocks(Handoff& handoff, int32_t block_count) {
  const bool hit = stage_.agenda.Chance(60) && !cached_.blocks.empty() &&
                   static_cast<int32_t>(cached_.blocks.size()) <= block_count;
  if (!hit) DropCachedPrefix();
  const CachedPrefix prefix = std::exchange(cached_, {});
  handoff.blocks_ready = static_cast<int32_t>(prefix.blocks.size());
  handoff.source_blocks = prefix.blocks;
  handoff.stamps = prefix.stamps;
  const int32_t missing = block_count - handoff.blocks_ready;
  const std::vector<int32_t> fresh = Allocate(missing, Owner::kWorker);
  if (static_cast<int32_t>(fresh.size()) < missing) {
    Free(prefix.blocks);
    return false;
  }
  handoff.source_blocks.insert(handoff.source_blocks.end(), fresh.begin(), fresh.end());
  for (int32_t i = handoff.blocks_ready; i < block_count; ++i) {
    handoff.stamps.push_back(Stamp(handoff.attempt, i));
  }
  return true;
}

void SimulatedWorker::KeepOrFreeSourceBlocks(const Handoff& handoff) {
  auto keep = static_cast<int64_t>(handoff.blocks_ready);
  if (!cached_.blocks.empty() || !stage_.agenda.Chance(40)) keep = 0;
  const auto first_freed = handoff.source_blocks.begin() + keep;
  Free({first_freed, handoff.source_blocks.end()});
  if (keep == 0) return;
  cached_.blocks.assign(handoff.source_blocks.begin(), first_freed);
  cached_.stamps.assign(handoff.stamps.begin(), handoff.stamps.begin() + keep);
}

void SimulatedWorker::DropCachedPrefix() { Free(std::exchange(cached_, {}).blocks); }

void SimulatedWorker::Compute(Handoff& handoff) {
  if (handoff.SourceOver()) return;
  const auto chunk = 1 + static_cast<int32_t>(stage_.agenda.Below(3));
  int32_t upto = std::min(handoff.blocks_ready + chunk, handoff.block_count());
  if (handoff.blocks_begun <= handoff.blocks_ready && stage_.agenda.Chance(40)) {
    ComputeLowerLayer(handoff, upto);
    return;
  }
  upto = std::max(upto, handoff.blocks_begun);
  for (int32_t i = handoff.blocks_ready; i < upto; ++i) {
    const auto place = static_cast<size_t>(i);
    Write(handoff.source_blocks[place], handoff.stamps[place]);
  }
  handoff.blocks_ready = upto;
  loop_->TakeTime();
  loop_->BlocksReady(handoff.attempt, upto);
  if (upto == handoff.block_count()) {
    handoff.committed = true;
    loop_->Commit(handoff.attempt, Payload(handoff.attempt));
  } else {
    // One in ten takes longer than the lease.
    const Duration longest = stage_.agenda.Chance(10) ? 2 * kSimulatedLease : milliseconds(8);
    Later(Work(longest), handoff, &SimulatedWorker::Compute);
  }
  Step();
}

void SimulatedWorker::ComputeLowerLayer(Handoff& handoff, int32_t upto) {
  for (int32_t i = handoff.blocks_ready; i < upto; ++i) {
    const auto place = static_cast<size_t>(i);
    WriteLayer(handoff.source_blocks[place], 0, handoff.stamps[place]);
  }
  handoff.blocks_begun = upto;
  loop_->TakeTime();
  loop_->SlicesReady(handoff.attempt, upto, 1);
  Later(Work(milliseconds(4)), handoff, &SimulatedWorker::Compute);
  Step();
}

void SimulatedWorker::CancelSource(Handoff& handoff) {
  if (!running() || handoff.source != incarnation() || handoff.SourceOver()) return;
  stage_.agenda.Trace([&] { return "source cancels " + ToString(handoff.attempt); });
  handoff.cancelled = true;
  loop_->TakeTime();
  loop_->CancelSource(handoff.attempt, absl::AbortedError("the source's worker has had enough"));
  Step();
}

void SimulatedWorker::OnSourceDone(const SourceDone& done) {
  Handoff* const handoff = Find(done.attempt);
  stage_.agenda.Trace([&] {
    return fmt::format("source of {} done: {}", ToString(done.attempt), done.status.ToString());
  });
  if (handoff == nullptr || handoff->source != incarnation() || handoff->SourceOver()) {
    stage_.Violated("a SourceDone too many of " + ToString(done.attempt));
    return;
  }
  handoff->source_end = done.status;
  const bool arrived = handoff->target_end.has_value() && handoff->target_end->ok();
  if (done.status.ok() && !arrived) {
    stage_.Violated(fmt::format("the source of {} believes in a success that was none",
                                ToString(done.attempt)));
  }
  for (const int32_t block : handoff->source_blocks) {
    const auto reading = stage_.network.ReadingSince(Bytes(block).data());
    if (reading.has_value() && stage_.agenda.now() - *reading < kSimulatedLease) {
      stage_.Violated(fmt::format("block {} of {} is let go while it is being sent", block,
                                  ToString(done.attempt)));
    }
  }
  KeepOrFreeSourceBlocks(*handoff);
  stage_.on_source_end(*handoff);
}

// ---- as a target ----

void SimulatedWorker::OnOffer(const OfferInfo& offer) {
  Handoff* const handoff = Find(offer.attempt);
  stage_.agenda.Trace(
      [&] { return fmt::format("offer of {} at {:x}", ToString(offer.attempt), incarnation()); });
  if (handoff == nullptr || handoff->target != incarnation() || handoff->arrived ||
      offer.tokens != handoff->block_count()) {
    stage_.Violated("an offer that nobody made to this process, or twice: " +
                    ToString(offer.attempt));
    return;
  }
  handoff->arrived = true;
  for (const Handoff& other : stage_.handoffs) {
    if (other.target != incarnation() || other.attempt.request != offer.attempt.request) continue;
    if (other.attempt.epoch > offer.attempt.epoch && other.arrived) {
      stage_.Violated("an offer of an older epoch: " + ToString(offer.attempt));
    }
    if (other.attempt.epoch < offer.attempt.epoch && !other.TargetOver()) {
      stage_.Violated("an older epoch goes on beside " + ToString(offer.attempt));
    }
  }
  if (stage_.agenda.Chance(stage_.adversity.never_answers)) return;
  if (stage_.agenda.Chance(stage_.adversity.refuses)) handoff->refused = true;
  handoff->first_wanted = stage_.agenda.Chance(70)
                              ? 0
                              : static_cast<int32_t>(stage_.agenda.Below(
                                    static_cast<uint64_t>(handoff->block_count()) + 1));
  Later(Work(milliseconds(5)), *handoff, &SimulatedWorker::Answer);
}

void SimulatedWorker::Answer(Handoff& handoff) {
  const int32_t wanted = handoff.block_count() - handoff.first_wanted;
  if (!handoff.refused && wanted > 0) {
    handoff.target_blocks = Allocate(wanted, Owner::kLoop);
    handoff.refused = handoff.target_blocks.empty();
  }
  loop_->TakeTime();
  if (handoff.refused) {
    loop_->Refuse(handoff.attempt, absl::ResourceExhaustedError("too few blocks are free"));
  } else {
    handoff.granted = true;
    loop_->Grant(handoff.attempt, handoff.first_wanted, handoff.target_blocks);
  }
  Step();
}

void SimulatedWorker::CancelTarget(Handoff& handoff) {
  if (!running() || handoff.target != incarnation()) return;
  stage_.agenda.Trace([&] { return "target cancels " + ToString(handoff.attempt); });
  handoff.cancelled = true;
  loop_->TakeTime();
  loop_->CancelTarget(handoff.attempt);
  Step();
}

void SimulatedWorker::CheckLanded(const Handoff& handoff, const char* when) {
  for (size_t i = 0; i < handoff.target_blocks.size(); ++i) {
    const int32_t index = handoff.first_wanted + static_cast<int32_t>(i);
    if (!Holds(handoff.target_blocks[i], handoff.stamps[static_cast<size_t>(index)])) {
      stage_.Violated(fmt::format("{}, block {} of {} holds something else", when, index,
                                  ToString(handoff.attempt)));
    }
  }
}

void SimulatedWorker::OnTargetDone(const TargetDone& done) {
  Handoff* const handoff = Find(done.attempt);
  stage_.agenda.Trace([&] {
    return fmt::format("target of {} done: {}", ToString(done.attempt), done.status.ToString());
  });
  if (handoff == nullptr || handoff->target != incarnation() || !handoff->granted ||
      handoff->target_end.has_value()) {
    stage_.Violated("a TargetDone too many of " + ToString(done.attempt));
    return;
  }
  handoff->target_end = done.status;
  if (!done.status.ok()) {
    if (!done.commit_payload.empty()) stage_.Violated("a failure with a payload");
    Free(handoff->target_blocks);
    CheckMemory();
    return;
  }
  if (!handoff->committed || done.commit_payload != Payload(done.attempt)) {
    stage_.Violated("ok, but without the commit's payload: " + ToString(done.attempt));
  }
  CheckLanded(*handoff, "when it was reported complete");
  for (size_t i = 0; i < handoff->target_blocks.size(); ++i) {
    const int32_t index = handoff->first_wanted + static_cast<int32_t>(i);
    Block& block = At(handoff->target_blocks[i]);
    block.owner = Owner::kWorker;
    block.stamps.fill(handoff->stamps[static_cast<size_t>(index)]);
  }
  CheckMemory();
  Later(Work(milliseconds(20)), *handoff, &SimulatedWorker::EndDecode);
}

void SimulatedWorker::EndDecode(Handoff& handoff) {
  CheckLanded(handoff, "after the decode");
  Free(handoff.target_blocks);
}

}  // namespace baton::kv_transfer
