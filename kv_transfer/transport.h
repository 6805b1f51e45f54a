#pragma once

// How bytes get from one handoff service to another: the seam below the service, with one
// implementation per way of moving bytes (in-process, UCX), one that adds NCCL to another
// (nccl_transport.h), and a fault-injecting one around them (faulty_transport.h).
//
// - Owns the slab, from creation to destruction.
// - One thread uses it (the service's); only Wake may be called from any thread. Nothing blocks but
//   Wait, and the destructor for a bounded time.
// - Events come only out of Progress, never from inside another call. A handler may call any method
//   but Progress and Wait.
// - Messages to one peer arrive in order, once, or the peer goes down. Data may overtake messages
//   and be overtaken. A message from a peer may come before or after Connect to it.
// - A send that was accepted says nothing about arrival.
// - A connection lasts until one side goes. There is no way to close one that lives: UCX 1.13
// crashes
//   when an endpoint is closed by force under data that is being sent, and closing an idle one
//   could lose an offer that is on its way.
// - After OnPeerDown(id) the id is not valid any more; every SendData to it has had, or still gets,
//   its OnSent.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "kv_transfer/handoff.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/peer_address.h"

namespace baton::kv_transfer {

using PeerId = uint64_t;  // never used twice

class TransportEvents {
 public:
  // The bytes live for the time of the call.
  virtual void OnMessage(std::span<const std::byte> message) = 0;
  // Whether data with this header and payload size may be taken in. False drops it unread.
  virtual bool WantsData(std::span<const std::byte> header, size_t payload_bytes) = 0;
  // The payload lies in the transport's own memory, for the time of the call.
  virtual void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) = 0;
  // The payload of the SendData with this tag is not read any more.
  virtual void OnSent(uint64_t tag) = 0;
  virtual void OnPeerDown(PeerId peer, const absl::Status& why) = 0;
  // Ok: data may be asked for by the lane from this peer. Else why it could not be opened, or has
  // failed: data that was asked for by it and is not here does not come.
  virtual void OnLane(PeerId peer, const absl::Status& status) = 0;

 protected:
  ~TransportEvents() = default;
};

// Another service's slab, mapped for reading. The mapping outlives the peer, its contents do not:
// whoever reads checks what it got.
class PeerSlab {
 public:
  virtual ~PeerSlab() = default;
  virtual std::span<const std::byte> bytes() const = 0;
  // Part of it, to be copied; valid until the next Read. Every block is read through here: the seam
  // where faults are put in.
  virtual std::span<const std::byte> Read(size_t offset, size_t count) const {
    return bytes().subspan(offset, count);
  }
};

class Transport {
 public:
  virtual ~Transport() = default;

  virtual std::span<std::byte> slab() = 0;
  // Adds what others need to reach this one: family, endpoint, slab_file.
  virtual void Describe(PeerAddress& address) const = 0;
  // For tables and logs: how mapped ("shm") and pulled ("ucx tcp", "nccl") bytes go.
  virtual std::string mapped_name() const = 0;
  virtual std::string pulled_name(DataWay way) const = 0;

  // Starts to connect; a peer that cannot be reached goes down later.
  virtual absl::StatusOr<PeerId> Connect(const PeerAddress& address) = 0;
  virtual void Send(PeerId peer, std::string message) = 0;
  // `payload` is read until OnSent(tag). By a lane only what the peer asks for by it; where there
  // is none, or none any more, it is lost, which the peer is told by its OnLane.
  virtual void SendData(PeerId peer, DataWay way, std::string header,
                        std::span<const std::byte> payload, uint64_t tag) = 0;
  // Target. Starts to open a lane for data from this peer, unless there is one. Ok: OnLane follows,
  // or came before. FailedPrecondition with the reason when there can be none between the two,
  // Unimplemented when this transport has no lanes at all.
  virtual absl::Status OpenLane(PeerId) {
    return absl::UnimplementedError("this transport has no lanes");
  }
  // FailedPrecondition with the reason when this peer's slab cannot be mapped here.
  virtual absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) = 0;

  // Gives out the events that are there. True when there was anything to do.
  virtual bool Progress(TransportEvents& events) = 0;
  // Returns when Progress may have something to do, after Wake, or after `longest`.
  virtual void Wait(Duration longest) = 0;
  virtual void Wake() = 0;
};

struct TransportOptions {
  TransportKind kind = TransportKind::kAuto;
  uint64_t incarnation = 0;
  size_t slab_bytes = 0;
  std::string ucx_tls;
  int32_t gpu = 0;
};

absl::StatusOr<std::unique_ptr<Transport>> CreateInprocTransport(const TransportOptions& options);
// Unavailable, with the reason, when Baton was built without UCX or it does not start here.
absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const TransportOptions& options);

// The service over a transport of the caller's making, with options.transport taken as given.
absl::StatusOr<std::unique_ptr<HandoffService>> CreateHandoffOver(
    std::unique_ptr<Transport> transport, uint64_t incarnation, const HandoffOptions& options,
    std::string name, std::function<void(HandoffEvent)> on_event);

}  // namespace baton::kv_transfer
