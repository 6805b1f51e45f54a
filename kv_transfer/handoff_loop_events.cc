// The half of HandoffLoop that answers: what arrives from peers, and what the machines then want.

#include <fmt/format.h>

#include <algorithm>

#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/failpoints.h"
#include "kv_transfer/handoff_loop.h"

namespace baton::kv_transfer {
namespace {

constexpr uint32_t kMostLeaseMs = 3'600'000;

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};

}  // namespace

// ---- messages ----

HandoffLoop::SourceTransfer* HandoffLoop::FindSource(const Message& message) {
  const auto found = sources_.find(message.attempt);
  if (found == sources_.end() || found->second->peer_incarnation != message.sender) return nullptr;
  return found->second.get();
}

HandoffLoop::TargetTransfer* HandoffLoop::FindTarget(const Attempt& attempt, uint64_t sender) {
  const auto found = targets_.find(attempt);
  if (found == targets_.end() || found->second->peer_incarnation != sender) return nullptr;
  return found->second.get();
}

void HandoffLoop::OnMessage(std::span<const std::byte> bytes) {
  const absl::StatusOr<Message> decoded = Decode(bytes);
  if (!decoded.ok()) {
    LogWarning(fmt::format("dropped a handoff message: {}", decoded.status().ToString()));
    return;
  }
  const Message& message = *decoded;
  if (message.receiver != own_.incarnation) return;  // meant for who was at this address before
  if (FailsOnArrival(message.body)) return;
  const Attempt& attempt = message.attempt;
  const auto for_source = [&](auto&& deliver) {
    SourceTransfer* const source = FindSource(message);
    if (source == nullptr) return;
    deliver(*source);
    Settle(attempt, *source);
  };
  const auto for_target = [&](auto&& deliver) {
    TargetTransfer* const target = FindTarget(attempt, message.sender);
    if (target == nullptr) return;
    deliver(*target);
    Settle(attempt, *target);
  };
  std::visit(
      Overloaded{
          [&](const OfferMessage& offer) { HandleOffer(message, offer); },
          [&](const CancelMessage& cancel) { HandleCancel(message, cancel); },
          [&](const GrantMessage& grant) {
            for_source([&](SourceTransfer& source) {
              if (source.machine.state() == SourceMachine::State::kOffered)
                source.granted_at = now_;
              source.machine.OnGrant(grant, now_);
            });
          },
          [&](const PullMessage& pull) {
            for_source([&](SourceTransfer& source) {
              source.way = pull.way;
              source.machine.OnPull(pull, now_);
            });
          },
          [&](const TargetHeartbeat&) {
            for_source([&](SourceTransfer& source) { source.machine.OnTargetHeartbeat(now_); });
          },
          [&](const ReleaseMessage& release) {
            for_source([&](SourceTransfer& source) { source.machine.OnRelease(release, now_); });
          },
          [&](const ReadyMessage& ready) {
            for_target([&](TargetTransfer& target) { target.machine.OnReady(ready, now_); });
          },
          [&](const SourceHeartbeat& heartbeat) {
            for_target(
                [&](TargetTransfer& target) { target.machine.OnSourceHeartbeat(heartbeat, now_); });
          },
          [&](const ProbeMessage& probe) {
            const Peer* const peer = peers_.FindIncarnation(message.sender);
            if (peer != nullptr) probes_.Answer(*peer, attempt, probe);
          },
      },
      message.body);
}

void HandoffLoop::HandleOffer(const Message& message, const OfferMessage& offer) {
  const Attempt& attempt = message.attempt;
  const absl::StatusOr<PeerAddress> address = DecodeAddress(offer.source_address);
  if (!address.ok() || address->incarnation != message.sender) {
    LogWarning(
        fmt::format("dropped an offer from '{}': its address is not its own", offer.source_name));
    return;
  }
  const absl::StatusOr<Peer*> peer = peers_.Get(*address);
  if (!peer.ok()) {
    LogWarning(
        fmt::format("dropped an offer from '{}': {}", offer.source_name, peer.status().ToString()));
    return;
  }
  const std::optional<uint32_t> newest = fence_.Newest(attempt.request);
  if (!fence_.Admit(attempt)) {
    if (*newest > attempt.epoch) {
      SendTo((*peer)->id, attempt,
             ReleaseMessage{
                 absl::AbortedError(fmt::format("epoch {} of this request has begun", *newest))});
    }
    return;  // a second copy of an offer is dropped
  }
  EndOlderEpochs(attempt);
  if (const absl::Status status = CheckOffer(offer, **peer); !status.ok()) {
    fence_.SetEnd(attempt, status);
    SendTo((*peer)->id, attempt, ReleaseMessage{status});
    return;
  }
  AdmitOffer(attempt, offer, **peer);
}

void HandoffLoop::EndOlderEpochs(const Attempt& attempt) {
  while (true) {
    const auto oldest = targets_.lower_bound(Attempt{attempt.request, 0});
    if (oldest == targets_.end() || !(oldest->first < attempt)) return;
    if (oldest->first.request != attempt.request) return;
    const Attempt old = oldest->first;
    oldest->second->machine.Cancel(
        absl::AbortedError(fmt::format("epoch {} of this request has begun", attempt.epoch)));
    Settle(old, *oldest->second);
  }
}

absl::Status HandoffLoop::CheckOffer(const OfferMessage& offer, Peer& peer) {
  if (ending_) return absl::UnavailableError(fmt::format("'{}' is shutting down", own_.name));
  if (targets_.size() >= options_.max_transfers) {
    return absl::ResourceExhaustedError(fmt::format(
        "'{}' takes part in {} transfers as target, the most it may", own_.name, targets_.size()));
  }
  BATON_RETURN_IF_ERROR(CheckCompatible(own_, peer.address));
  const int32_t blocks = LayoutOf(peer.address).BlocksFor(offer.tokens);
  if (blocks != offer.block_count) {
    return absl::InvalidArgumentError(fmt::format("{} tokens take {} blocks, {} are offered",
                                                  offer.tokens, blocks, offer.block_count));
  }
  const int64_t block_bytes = LayoutOf(peer.address).block_bytes();
  if (block_bytes % offer.slices != 0 || (offer.slices > 1 && peer.address.layout != own_.layout)) {
    return absl::InvalidArgumentError(
        fmt::format("blocks of {} bytes come in {} slices{}", block_bytes, offer.slices,
                    block_bytes % offer.slices == 0 ? ", and cannot be converted then" : ""));
  }
  BATON_RETURN_IF_ERROR(peers_.PrepareToRead(peer, now_));
  if (options_.measure_paths) probes_.Start(peer, now_);
  return absl::OkStatus();
}

// Of a peer that CheckCompatible let through.
kernels::KvLayout HandoffLoop::LayoutOf(const PeerAddress& compatible) const {
  if (compatible.layout == own_.layout) return options_.layout;
  const auto layout = kernels::KvLayout::FromString(compatible.layout);
  BATON_CHECK(layout.ok(), "another layout that fits ours was understood");
  return *layout;
}

void HandoffLoop::AdmitOffer(const Attempt& attempt, const OfferMessage& offer, Peer& peer) {
  const kernels::KvLayout source_layout = LayoutOf(peer.address);
  const int64_t source_block_bytes = source_layout.block_bytes();
  TargetMachine::Config config{
      .block_count = offer.block_count,
      .slices = offer.slices,
      .source_slab_blocks = peer.address.block_count,
      .lease = std::chrono::milliseconds(std::clamp(offer.lease_ms, 1u, kMostLeaseMs)),
      .offer_timeout = options_.offer_timeout,
      .ready_timeout = options_.ready_timeout};
  if (peer.slab != nullptr) {
    const auto mapped = static_cast<int64_t>(peer.slab->bytes().size()) / source_block_bytes;
    config.source_slab_blocks =
        static_cast<int32_t>(std::min<int64_t>(config.source_slab_blocks, mapped));
  }
  auto transfer = std::make_unique<TargetTransfer>(config, now_);
  transfer->peer = peer.id;
  transfer->peer_incarnation = peer.address.incarnation;
  transfer->peer_name = offer.source_name;
  const std::optional<DataWay> faster = probes_.FasterPull(peer.id);
  if (!faster.has_value()) transfer->slab = peer.slab;
  const bool by_lane = options_.transport == TransportKind::kNccl;
  transfer->way = by_lane ? DataWay::kLane : faster.value_or(DataWay::kWire);
  transfer->piece_bytes = source_block_bytes / offer.slices;
  if (source_layout != options_.layout) {
    auto conversion = BlockConversion::Create(source_layout, options_.layout, offer.tokens);
    BATON_CHECK(conversion.ok(), "a compatible peer's blocks can be converted");
    transfer->conversion = *std::move(conversion);
    if (!std::exchange(peer.conversion_told, true)) {
      LogInfo(fmt::format("KV from '{}' is converted: its layout is '{}', ours is '{}'",
                          peer.address.name, peer.address.layout, own_.layout));
    }
  }
  targets_[attempt] = std::move(transfer);
  ++active_targets_;
  on_event_(OfferArrived{{.attempt = attempt,
                          .tokens = offer.tokens,
                          .block_hashes = offer.block_hashes,
                          .source_name = offer.source_name,
                          .layout = source_layout}});
}

void HandoffLoop::HandleCancel(const Message& message, const CancelMessage& cancel) {
  if (TargetTransfer* const target = FindTarget(message.attempt, message.sender)) {
    target->machine.OnCancel(cancel);
    Settle(message.attempt, *target);
    return;
  }
  // Should its offer still be on the way, it comes too late.
  if (fence_.Admit(message.attempt)) EndOlderEpochs(message.attempt);
  if (const Peer* const peer = peers_.FindIncarnation(message.sender)) {
    SendTo(peer->id, message.attempt, ReleaseMessage{absl::AbortedError("no such transfer")});
  }
}

// ---- data and peers ----

bool HandoffLoop::WantsData(std::span<const std::byte> header_bytes, size_t payload_bytes) {
  const absl::StatusOr<DataHeader> header = DecodeDataHeader(header_bytes);
  if (!header.ok() || header->receiver != own_.incarnation) return false;
  if (probes_.Wants(*header, payload_bytes)) return true;
  const TargetTransfer* const transfer = FindTarget(header->attempt, header->sender);
  return transfer != nullptr && transfer->machine.InFlight(header->run).has_value() &&
         payload_bytes == static_cast<size_t>(header->run.count * transfer->piece_bytes);
}

void HandoffLoop::OnData(std::span<const std::byte> header_bytes,
                         std::span<const std::byte> payload) {
  // The transfer may have ended, or a second copy have landed, since WantsData.
  if (!WantsData(header_bytes, payload.size())) return;
  const DataHeader header = *DecodeDataHeader(header_bytes);
  if (probes_.Take(header, payload.size(), clock_.Now())) return;
  TargetTransfer& transfer = *FindTarget(header.attempt, header.sender);
  const auto bytes = static_cast<int64_t>(payload.size());
  transfer.pulled_in_flight_bytes -= bytes;
  pulled_in_flight_bytes_ -= bytes;
  Land(transfer, *transfer.machine.InFlight(header.run), payload.data());
  Settle(header.attempt, transfer);
}

void HandoffLoop::OnSent(uint64_t tag) {
  if (tag == PathProbes::kSendTag) return probes_.OnSent();
  const auto sent = sends_.find(tag);
  if (sent == sends_.end()) return;
  const SendInProgress send = sent->second;
  sends_.erase(sent);
  const auto found = sources_.find(send.attempt);
  if (found == sources_.end() || found->second->serial != send.serial) return;
  found->second->machine.OnSent();
  Settle(send.attempt, *found->second);
}

void HandoffLoop::OnPeerDown(PeerId peer, const absl::Status& why) {
  std::vector<Attempt> attempts;
  for (const auto& [attempt, transfer] : sources_) {
    if (transfer->peer == peer) attempts.push_back(attempt);
  }
  for (const Attempt& attempt : attempts) {
    const auto found = sources_.find(attempt);
    if (found == sources_.end()) continue;
    found->second->machine.OnPeerDown(why, now_);
    Settle(attempt, *found->second);
  }
  attempts.clear();
  for (const auto& [attempt, transfer] : targets_) {
    if (transfer->peer == peer) attempts.push_back(attempt);
  }
  for (const Attempt& attempt : attempts) {
    const auto found = targets_.find(attempt);
    if (found == targets_.end()) continue;
    found->second->machine.OnPeerDown(why);
    Settle(attempt, *found->second);
  }
  peers_.Remove(peer);
  probes_.Remove(peer);
}

void HandoffLoop::OnLane(PeerId id, const absl::Status& status) {
  Peer* const peer = peers_.Find(id);
  if (peer == nullptr) return;
  peers_.NoteLane(*peer, status, now_);
  if (!status.ok()) {
    probes_.ForgetLane(id);
  } else if (options_.measure_paths) {
    probes_.MeasureLane(id, now_);
  }
  std::vector<Attempt> attempts;
  for (const auto& [attempt, transfer] : targets_) {
    if (transfer->peer == id && transfer->way == DataWay::kLane) attempts.push_back(attempt);
  }
  for (const Attempt& attempt : attempts) {
    const auto found = targets_.find(attempt);
    if (found == targets_.end()) continue;
    if (!status.ok()) found->second->machine.Cancel(status);
    Settle(attempt, *found->second);
  }
}

// ---- what the machines want ----

void HandoffLoop::Settle(const Attempt& attempt, SourceTransfer& transfer) {
  const PeerId peer = transfer.peer;
  std::optional<Finish> finished;
  for (SourceAction& action : transfer.machine.TakeActions()) {
    std::visit(Overloaded{
                   [&](SendMessage& send) { SendTo(peer, attempt, std::move(send.body)); },
                   [&](const SendRun& send) { StartSend(attempt, transfer, send); },
                   [&](const Finish& finish) { finished = finish; },
               },
               action);
  }
  if (!finished.has_value()) {
    QueueToHash(attempt, transfer);
    return;
  }
  if (finished->sends_given_up) {
    LogWarning(fmt::format("'{}' took no data for {:.1f} s: attempt {} is over without it",
                           transfer.peer_name, Seconds(options_.lease), ToString(attempt)));
  }
  FinishSource(attempt, finished->status);
}

void HandoffLoop::StartSend(const Attempt& attempt, const SourceTransfer& transfer,
                            const SendRun& send) {
  const uint64_t tag = next_serial_++;
  sends_[tag] = {attempt, transfer.serial};
  ReachBeforeData();
  transport_.SendData(transfer.peer, send.way,
                      EncodeDataHeader({.sender = own_.incarnation,
                                        .receiver = transfer.peer_incarnation,
                                        .attempt = attempt,
                                        .run = send.run}),
                      Pieces(send.source_piece, send.run.count, transfer.piece_bytes), tag);
  ReachAfterData();
}

void HandoffLoop::FinishSource(const Attempt& attempt, const absl::Status& status) {
  const auto node = sources_.extract(attempt);
  const SourceTransfer& transfer = *node.mapped();
  const SourceMachine& machine = transfer.machine;
  const bool granted = transfer.granted_at != TimePoint{};
  const bool pulled = machine.pieces_pulled() > 0;
  SourceDone done{attempt, status, {}};
  done.stats.peer_name = transfer.peer_name;
  done.stats.transport = pulled ? transport_.pulled_name(transfer.way) : transport_.mapped_name();
  done.stats.blocks_total = machine.block_count();
  done.stats.bytes_hashed = transfer.pieces_hashed * transfer.piece_bytes;
  if (pulled) {
    done.stats.bytes_moved = machine.pieces_pulled() * transfer.piece_bytes;
  } else if (status.ok()) {
    done.stats.bytes_moved = (machine.block_count() - machine.first_block_wanted()) * block_bytes_;
  }
  done.stats.blocks_moved = static_cast<int32_t>(done.stats.bytes_moved / block_bytes_);
  if (granted) done.stats.elapsed = now_ - transfer.granted_at;
  if (granted && machine.committed()) {
    done.stats.exposed = now_ - std::max(transfer.committed_at, transfer.granted_at);
  }
  if (absl::IsDataLoss(status) && machine.slices() == slices_) {
    for (int32_t i = 0; i < machine.block_count() * machine.slices(); ++i) {
      kept_checksums_.Forget(machine.source_piece(i));
    }
  }
  on_event_(std::move(done));
  ReachSourceDone();
}

void HandoffLoop::Settle(const Attempt& attempt, TargetTransfer& transfer) {
  std::optional<TargetFinish> finished;
  for (TargetAction& action : transfer.machine.TakeActions()) {
    std::visit(Overloaded{
                   [&](TargetSend& send) { SendTo(transfer.peer, attempt, std::move(send.body)); },
                   [&](const TargetFinish& finish) { finished = finish; },
               },
               action);
  }
  if (finished.has_value()) {
    FinishTarget(attempt, *finished);
  } else {
    QueueToMove(attempt, transfer);
  }
}

void HandoffLoop::FinishTarget(const Attempt& attempt, const TargetFinish& finish) {
  const auto node = targets_.extract(attempt);
  const TargetTransfer& transfer = *node.mapped();
  const TargetMachine& machine = transfer.machine;
  pulled_in_flight_bytes_ -= transfer.pulled_in_flight_bytes;
  --active_targets_;
  if (!finish.granted) {
    fence_.SetEnd(attempt, finish.status);
    return;
  }
  TargetDone done{attempt, finish.status, "", {}};
  done.stats.peer_name = transfer.peer_name;
  done.stats.transport =
      transfer.slab != nullptr ? transport_.mapped_name() : transport_.pulled_name(transfer.way);
  done.stats.blocks_total = machine.block_count();
  done.stats.blocks_moved = machine.pieces_landed() / machine.slices();
  done.stats.bytes_moved = machine.pieces_landed() * transfer.piece_bytes;
  done.stats.elapsed = machine.last_landed_at() - machine.granted_at();
  done.stats.moving = machine.moving();
  done.stats.committed_at = machine.committed_at();
  if (machine.committed_at() != TimePoint{}) {
    done.stats.exposed = std::max(Duration{}, machine.last_landed_at() - machine.committed_at());
  }
  if (finish.status.ok()) done.commit_payload = machine.commit_payload();
  on_event_(std::move(done));
  ReachTargetDone();
}

}  // namespace baton::kv_transfer
