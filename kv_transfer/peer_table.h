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

  // Decides, once for a peer, how blocks come from it: mapped (peer.slab is set) or pulled.
  // FailedPrecondition when `kind` insists on mapping and it cannot be had.
  absl::Status PrepareToRead(Peer& peer);

  void Remove(PeerId id);  // it is down

 private:
  static constexpr size_t kMostPeers = 4'096;

  Transport& transport_;
  const TransportKind kind_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Peer>> by_incarnation_;
  absl::flat_hash_map<PeerId, Peer*> by_id_;
};

}  // namespace baton::kv_transfer
