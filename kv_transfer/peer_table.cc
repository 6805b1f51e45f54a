#include "kv_transfer/peer_table.h"

#include <fmt/format.h>

#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::kv_transfer {
namespace {

// Opening a lane costs both sides' GPUs something: one that fails is not tried at every offer.
constexpr Duration kLaneAgainAfter = std::chrono::seconds(10);

}  // namespace

absl::StatusOr<Peer*> PeerTable::Get(const PeerAddress& address) {
  if (Peer* known = FindIncarnation(address.incarnation); known != nullptr) return known;
  if (by_id_.size() >= kMostPeers) {
    return absl::ResourceExhaustedError(
        fmt::format("connected to {} handoff services, the most there may be", by_id_.size()));
  }
  BATON_ASSIGN_OR_RETURN(const PeerId id, transport_.Connect(address));
  auto& peer = by_incarnation_[address.incarnation];
  peer = std::make_unique<Peer>(Peer{.id = id, .address = address, .slab = nullptr});
  by_id_[id] = peer.get();
  return peer.get();
}

Peer* PeerTable::FindIncarnation(uint64_t incarnation) {
  const auto found = by_incarnation_.find(incarnation);
  return found == by_incarnation_.end() ? nullptr : found->second.get();
}

Peer* PeerTable::Find(PeerId id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

absl::Status PeerTable::PrepareToRead(Peer& peer, TimePoint now) {
  if (kind_ == TransportKind::kNccl) return OpenLane(peer, now);
  if (kind_ == TransportKind::kUcx) return absl::OkStatus();
  // Without a lane there are the other ways; why there is none was logged.
  if (kind_ == TransportKind::kAuto) OpenLane(peer, now).IgnoreError();
  return Map(peer);
}

absl::Status PeerTable::OpenLane(Peer& peer, TimePoint now) {
  if (peer.lane == Peer::Lane::kOpening || peer.lane == Peer::Lane::kOpen) return absl::OkStatus();
  if (peer.lane == Peer::Lane::kFailed && now < peer.lane_again_at) return peer.lane_failure;
  const absl::Status status = transport_.OpenLane(peer.id);
  if (status.ok()) {
    peer.lane = Peer::Lane::kOpening;
  } else {
    NoteLane(peer, status, now);
  }
  return status;
}

void PeerTable::NoteLane(Peer& peer, const absl::Status& status, TimePoint now) {
  peer.lane = status.ok() ? Peer::Lane::kOpen : Peer::Lane::kFailed;
  peer.lane_failure = status;
  if (status.ok()) return;
  // What the two are does not change.
  const bool for_good = absl::IsFailedPrecondition(status) || absl::IsUnimplemented(status);
  peer.lane_again_at = for_good ? TimePoint::max() : now + kLaneAgainAfter;
  if (absl::IsUnimplemented(status)) return;
  LogWarning(fmt::format("KV from '{}' does not come by {}: {}", peer.address.name,
                         transport_.pulled_name(DataWay::kLane), status.ToString()));
}

bool PeerTable::LaneIsOpen(PeerId id) {
  const Peer* const peer = Find(id);
  return peer != nullptr && peer->lane == Peer::Lane::kOpen;
}

absl::Status PeerTable::Map(Peer& peer) {
  if (peer.slab != nullptr) return absl::OkStatus();
  if (peer.slab_tried && kind_ == TransportKind::kAuto) return absl::OkStatus();
  peer.slab_tried = true;
  absl::StatusOr<std::shared_ptr<const PeerSlab>> slab = transport_.MapSlab(peer.address);
  if (slab.ok()) {
    peer.slab = *std::move(slab);
    LogInfo(fmt::format("KV from '{}' comes by {}", peer.address.name, transport_.mapped_name()));
    return absl::OkStatus();
  }
  if (kind_ != TransportKind::kAuto) return slab.status();
  LogWarning(fmt::format("KV from '{}' comes by {}, which is slower than shared memory: {}",
                         peer.address.name, transport_.pulled_name(DataWay::kWire),
                         slab.status().ToString()));
  return absl::OkStatus();
}

void PeerTable::Remove(PeerId id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  by_incarnation_.erase(found->second->address.incarnation);
  by_id_.erase(id);
}

}  // namespace baton::kv_transfer
