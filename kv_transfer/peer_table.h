#pragma once

// The peers that a handoff service is connected to, by incarnation: connects on demand, maps slabs.
// A connection lasts until one side goes: closing an idle one could lose an offer that is on its
// way. Used by the service's thread only.

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

struct Peer {
  PeerId id = 0;
  PeerAddress address;
  std::shared_ptr<const PeerSlab> slab;  // null until wanted, and where blocks are pulled
  bool slab_tried = false;
  bool conversion_told = false;  // logged that its KV layout is another
  enum class Lane : uint8_t { kUntried, kOpening, kOpen, kFailed } lane = Lane::kUntried;
  absl::Status lane_failure;
  TimePoint lane_again_at;  // not tried before, once it has failed
};

class PeerTable {
 public:
  PeerTable(Transport& transport, TransportKind kind) : transport_(transport), kind_(kind) {}

  // The peer with this address, connected now if it was not. The pointer holds until Remove.
  // ResourceExhausted when there are too many.
  absl::StatusOr<Peer*> Get(const PeerAddress& address);
  // Null when not connected.
  Peer* FindIncarnation(uint64_t incarnation);
  Peer* Find(PeerId id);

  // Decides, once for a peer, how blocks come from it: mapped (peer.slab is set) or pulled; and
  // starts to open a lane where `kind` has use for one. The reason when `kind` insists on mapping
  // or on a lane and it cannot be had.
  absl::Status PrepareToRead(Peer& peer, TimePoint now);
  bool LaneIsOpen(PeerId id);
  // As TransportEvents::OnLane told.
  void NoteLane(Peer& peer, const absl::Status& status, TimePoint now);

  void Remove(PeerId id);  // it is down

 private:
  static constexpr size_t kMostPeers = 4'096;

  absl::Status OpenLane(Peer& peer, TimePoint now);
  absl::Status Map(Peer& peer);

  Transport& transport_;
  const TransportKind kind_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Peer>> by_incarnation_;
  absl::flat_hash_map<PeerId, Peer*> by_id_;
};

}  // namespace baton::kv_transfer
