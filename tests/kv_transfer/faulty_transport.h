#pragma once

// A transport that does to messages and data what networks and broken peers do.

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kv_transfer/messages.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

struct Faults {
  // Called with every message that is sent; how many copies of what is left in it go out.
  std::function<int(std::string&)> on_send = [](std::string&) { return 1; };
  // May damage data that came.
  std::function<void(std::string&)> on_data = [](std::string&) {};
  bool refuse_mapping = false;   // blocks have to be pulled
  bool garbage_mapping = false;  // the mapped slab holds something else
  bool swallow_data = false;     // what is sent as data is never done with
};

class FaultyTransport final : public Transport, private TransportEvents {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, Faults faults)
      : inner_(std::move(inner)), faults_(std::move(faults)) {}

  std::span<std::byte> slab() override { return inner_->slab(); }
  void Describe(PeerAddress& address) const override { inner_->Describe(address); }
  std::string mapped_name() const override { return inner_->mapped_name(); }
  std::string pulled_name() const override { return inner_->pulled_name(); }
  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override {
    return inner_->Connect(address);
  }
  void Send(PeerId peer, std::string message) override {
    const int copies = faults_.on_send(message);
    for (int i = 0; i < copies; ++i) inner_->Send(peer, message);
  }
  void SendData(PeerId peer, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override {
    if (!faults_.swallow_data) inner_->SendData(peer, std::move(header), payload, tag);
  }
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override {
    if (faults_.refuse_mapping) return absl::FailedPreconditionError("mapping is refused");
    if (!faults_.garbage_mapping) return inner_->MapSlab(address);
    return std::make_shared<Garbage>(static_cast<size_t>(address.slab_bytes()));
  }
  bool Progress(TransportEvents& events) override {
    events_ = &events;
    return inner_->Progress(*this);
  }
  void Wait(Duration longest) override { inner_->Wait(longest); }
  void Wake() override { inner_->Wake(); }

 private:
  class Garbage final : public PeerSlab {
   public:
    explicit Garbage(size_t bytes) : bytes_(bytes, std::byte{0xBD}) {}
    std::span<const std::byte> bytes() const override { return bytes_; }

   private:
    std::vector<std::byte> bytes_;
  };

  void OnMessage(std::span<const std::byte> message) override { events_->OnMessage(message); }
  bool WantsData(std::span<const std::byte> header, size_t bytes) override {
    return events_->WantsData(header, bytes);
  }
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override {
    std::string bytes(reinterpret_cast<const char*>(payload.data()), payload.size());
    faults_.on_data(bytes);
    events_->OnData(header, std::as_bytes(std::span(bytes.data(), bytes.size())));
  }
  void OnSent(uint64_t tag) override { events_->OnSent(tag); }
  void OnPeerDown(PeerId peer, const absl::Status& why) override { events_->OnPeerDown(peer, why); }

  std::unique_ptr<Transport> inner_;
  Faults faults_;
  TransportEvents* events_ = nullptr;
};

// The index in MessageBody of the message in these bytes.
inline size_t TypeOf(const std::string& message) {
  return Decode(std::as_bytes(std::span(message.data(), message.size())))->body.index();
}

}  // namespace baton::kv_transfer
