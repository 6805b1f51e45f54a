#include "kv_transfer/faulty_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/ids.h"
#include "common/logging.h"
#include "kv_transfer/byte_codec.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {
namespace {

// A peer's memory as its reader sees it through faults: each read is of a copy.
class FaultySlab final : public PeerSlab {
 public:
  FaultySlab(std::shared_ptr<const PeerSlab> inner,
             std::function<void(std::span<std::byte>)> on_read)
      : inner_(std::move(inner)), on_read_(std::move(on_read)) {}

  std::span<const std::byte> bytes() const override { return inner_->bytes(); }
  std::span<const std::byte> Read(size_t offset, size_t count) const override {
    const std::span<const std::byte> sound = inner_->Read(offset, count);
    copy_.assign(sound.begin(), sound.end());
    on_read_(copy_);
    return copy_;
  }

 private:
  const std::shared_ptr<const PeerSlab> inner_;
  const std::function<void(std::span<std::byte>)> on_read_;
  mutable std::vector<std::byte> copy_;  // one thread reads
};

class FaultyTransport final : public Transport, private TransportEvents {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, Faults faults)
      : inner_(std::move(inner)), faults_(std::move(faults)) {}

  std::span<std::byte> slab() override { return inner_->slab(); }
  void Describe(PeerAddress& address) const override { inner_->Describe(address); }
  std::string mapped_name() const override { return inner_->mapped_name(); }
  std::string pulled_name(DataWay way) const override { return inner_->pulled_name(way); }
  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override {
    return inner_->Connect(address);
  }
  void Send(PeerId peer, std::string message) override;
  void SendData(PeerId peer, DataWay way, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override;
  absl::Status OpenLane(PeerId peer) override { return inner_->OpenLane(peer); }
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override;
  bool Progress(TransportEvents& events) override;
  void Wait(Duration longest) override;
  void Wake() override { inner_->Wake(); }

 private:
  // Something that waits for its time to go out.
  struct Held {
    TimePoint due;
    PeerId peer = 0;
    std::string bytes;  // the message, or the data's header
    bool is_data = false;
    DataWay way = DataWay::kWire;
    std::span<const std::byte> payload;
    uint64_t tag = 0;
  };

  void Hold(Held held, Duration delay);
  void Release(Held held);
  void Close(PeerId peer);
  void Sent(uint64_t tag);

  void OnMessage(std::span<const std::byte> message) override { events_->OnMessage(message); }
  bool WantsData(std::span<const std::byte> header, size_t bytes) override {
    return events_->WantsData(header, bytes);
  }
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override;
  void OnSent(uint64_t tag) override { Sent(tag); }
  void OnPeerDown(PeerId peer, const absl::Status& why) override {
    if (closed_.erase(peer) == 0) events_->OnPeerDown(peer, why);
  }
  void OnLane(PeerId peer, const absl::Status& status) override {
    if (!closed_.contains(peer)) events_->OnLane(peer, status);
  }

  const std::unique_ptr<Transport> inner_;
  const Faults faults_;
  TransportEvents* events_ = nullptr;
  std::deque<Held> held_;                          // in the order of `due`
  absl::flat_hash_set<PeerId> closed_;             // here; the connection below goes on, unheard
  std::vector<PeerId> newly_closed_;               // not told yet
  absl::flat_hash_map<uint64_t, int> sends_left_;  // by tag, of data that goes out
  std::vector<uint64_t> sent_;                     // not told yet
};

void FaultyTransport::Send(PeerId peer, std::string message) {
  if (closed_.contains(peer)) return;
  std::vector<std::string> also;
  const Fate fate = faults_.on_send ? faults_.on_send(peer, message, also) : Fate();
  if (fate.close) return Close(peer);
  for (int i = 0; i < fate.copies; ++i) Hold({.peer = peer, .bytes = message}, fate.delay);
  for (std::string& other : also) Hold({.peer = peer, .bytes = std::move(other)}, fate.delay);
}

void FaultyTransport::SendData(PeerId peer, DataWay way, std::string header,
                               std::span<const std::byte> payload, uint64_t tag) {
  if (faults_.swallow_data) return;
  const Fate fate = faults_.on_send_data ? faults_.on_send_data() : Fate();
  if (fate.close && !closed_.contains(peer)) Close(peer);
  if (fate.close || fate.copies < 1 || closed_.contains(peer)) {
    sent_.push_back(tag);
    return;
  }
  sends_left_[tag] = fate.copies;
  for (int i = 0; i < fate.copies; ++i) {
    Hold({.peer = peer,
          .bytes = header,
          .is_data = true,
          .way = way,
          .payload = payload,
          .tag = tag},
         fate.delay);
  }
}

void FaultyTransport::Hold(Held held, Duration delay) {
  if (delay == Duration{} && held_.empty()) return Release(std::move(held));
  held.due = SystemClock().Now() + delay;
  if (!held_.empty()) held.due = std::max(held.due, held_.back().due);
  held_.push_back(std::move(held));
}

void FaultyTransport::Release(Held held) {
  if (!held.is_data) {
    if (!closed_.contains(held.peer)) inner_->Send(held.peer, std::move(held.bytes));
  } else if (closed_.contains(held.peer)) {
    Sent(held.tag);
  } else {
    inner_->SendData(held.peer, held.way, std::move(held.bytes), held.payload, held.tag);
  }
}

void FaultyTransport::Close(PeerId peer) {
  closed_.insert(peer);
  newly_closed_.push_back(peer);
}

// Told once the last copy is out: until then the payload is read.
void FaultyTransport::Sent(uint64_t tag) {
  const auto left = sends_left_.find(tag);
  if (left == sends_left_.end() || --left->second > 0) return;
  sends_left_.erase(left);
  sent_.push_back(tag);
}

absl::StatusOr<std::shared_ptr<const PeerSlab>> FaultyTransport::MapSlab(
    const PeerAddress& address) {
  if (faults_.refuse_mapping) return absl::FailedPreconditionError("mapping is refused");
  absl::StatusOr<std::shared_ptr<const PeerSlab>> slab = inner_->MapSlab(address);
  if (!slab.ok() || !faults_.on_read) return slab;
  return std::make_shared<FaultySlab>(*std::move(slab), faults_.on_read);
}

bool FaultyTransport::Progress(TransportEvents& events) {
  events_ = &events;
  bool busy = inner_->Progress(*this);
  const TimePoint now = SystemClock().Now();
  while (!held_.empty() && held_.front().due <= now) {
    busy = true;
    Held held = std::move(held_.front());
    held_.pop_front();
    Release(std::move(held));
  }
  for (const uint64_t tag : std::exchange(sent_, {})) {
    busy = true;
    events.OnSent(tag);
  }
  for (const PeerId peer : std::exchange(newly_closed_, {})) {
    busy = true;
    events.OnPeerDown(peer, absl::UnavailableError("connection lost by --transport-faults"));
  }
  return busy;
}

void FaultyTransport::Wait(Duration longest) {
  if (!sent_.empty() || !newly_closed_.empty()) return;
  if (!held_.empty()) longest = std::min(longest, held_.front().due - SystemClock().Now());
  if (longest > Duration{}) inner_->Wait(longest);
}

void FaultyTransport::OnData(std::span<const std::byte> header,
                             std::span<const std::byte> payload) {
  if (!faults_.on_data) return events_->OnData(header, payload);
  std::string bytes(reinterpret_cast<const char*>(payload.data()), payload.size());
  faults_.on_data(bytes);
  events_->OnData(header, AsBytes(bytes));
}

// ---- faults at random ----

class Dice {
 public:
  explicit Dice(const TransportFaults& faults)
      : faults_(faults), random_(faults.seed == 0 ? RandomU64() : faults.seed) {}

  Fate OnSend(PeerId peer, std::string& message, std::vector<std::string>& also) {
    Fate fate = OnSendData();
    const std::string sound = message;
    if (Happens(faults_.corrupt)) Flip(message.data(), message.size());
    if (Happens(faults_.truncate)) message.resize(random_() % message.size());
    if (Happens(faults_.forge)) also.push_back(Forged(sound));
    if (!sent_.empty() && Happens(faults_.replay)) {
      const auto& [its_peer, earlier] = sent_[random_() % sent_.size()];
      if (its_peer == peer) also.push_back(earlier);
    }
    sent_.emplace_back(peer, sound);
    if (sent_.size() > kRemembered) sent_.pop_front();
    return fate;
  }
  Fate OnSendData() {
    Fate fate;
    if (Happens(faults_.drop)) {
      fate.copies = 0;
    } else if (Happens(faults_.duplicate)) {
      fate.copies = 2;
    }
    fate.delay = faults_.delay;
    if (Happens(faults_.stall)) fate.delay += faults_.stall_time;
    fate.close = Happens(faults_.close);
    return fate;
  }
  void OnData(std::string& data) {
    if (Happens(faults_.corrupt)) Flip(data.data(), data.size());
    if (Happens(faults_.truncate)) data.resize(random_() % data.size());
  }
  void OnRead(std::span<std::byte> bytes) {
    if (Happens(faults_.corrupt)) Flip(reinterpret_cast<char*>(bytes.data()), bytes.size());
  }

 private:
  static constexpr size_t kRemembered = 64;

  bool Happens(double probability) {
    return probability > 0 && std::uniform_real_distribution<>(0, 1)(random_) < probability;
  }
  void Flip(char* bytes, size_t size) {
    if (size > 0) bytes[random_() % size] ^= static_cast<char>(1 << random_() % 8);
  }
  // Sound as a message, and from nobody who may send it.
  std::string Forged(const std::string& sound) {
    absl::StatusOr<Message> message = Decode(AsBytes(sound));
    if (!message.ok()) return sound;
    if (message->attempt.epoch > 0 && random_() % 2 == 0) {
      --message->attempt.epoch;
    } else {
      ++(random_() % 2 == 0 ? message->sender : message->receiver);
    }
    return Encode(*message);
  }

  const TransportFaults faults_;
  std::mt19937_64 random_;
  std::deque<std::pair<PeerId, std::string>> sent_;
};

}  // namespace

Faults RandomFaults(const TransportFaults& wanted) {
  TransportFaults faults = wanted;
  if (faults.seed == 0) faults.seed = RandomU64();
  LogWarning(fmt::format("TRANSPORT FAULTS {}: this process is a test's, its transfers will fail",
                         ToText(faults)));
  const auto dice = std::make_shared<Dice>(faults);
  Faults random;
  random.on_send = [dice](PeerId peer, std::string& message, std::vector<std::string>& also) {
    return dice->OnSend(peer, message, also);
  };
  random.on_send_data = [dice] { return dice->OnSendData(); };
  if (faults.corrupt > 0 || faults.truncate > 0) {
    random.on_data = [dice](std::string& data) { dice->OnData(data); };
  }
  if (faults.corrupt > 0) {
    random.on_read = [dice](std::span<std::byte> bytes) { dice->OnRead(bytes); };
  }
  return random;
}

std::unique_ptr<Transport> WithFaults(std::unique_ptr<Transport> inner, Faults faults) {
  return std::make_unique<FaultyTransport>(std::move(inner), std::move(faults));
}

}  // namespace baton::kv_transfer
