#include "tests/kv_transfer/simulated_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;

constexpr Duration kLongestRead = milliseconds(2), kStuckRead = milliseconds(400);
constexpr Duration kLongestNotice = milliseconds(30);
// Of an encoded message: after the magic and the version. Most are not worth decoding.
constexpr size_t kTypeAt = 5;
constexpr char kReleaseType = 6;
static_assert(
    std::is_same_v<std::variant_alternative_t<kReleaseType, MessageBody>, ReleaseMessage>);

absl::Status Gone(uint64_t incarnation) {
  return absl::UnavailableError(fmt::format("process {:x} has ended", incarnation));
}

}  // namespace

void SimulatedNetwork::Plug(SimulatedTransport& transport, std::function<void()> wake) {
  Port& port = ports_[static_cast<size_t>(HostOf(transport.incarnation()))];
  port.transport = &transport;
  port.wake = std::move(wake);
}

void SimulatedNetwork::Unplug(int host) {
  Port& port = ports_[static_cast<size_t>(host)];
  const uint64_t gone = port.transport->incarnation();
  port.earlier.push_back(gone);
  port.transport = nullptr;
  for (Read& read : reads_) {
    if (read.sender == gone) read.over = true;
  }
  for (const Port& other : ports_) {
    // A stopped machine answers nothing, and closes nothing either.
    if (other.transport == nullptr || agenda_.Chance(25)) continue;
    ReportDown(other.transport->incarnation(), gone);
  }
}

void SimulatedNetwork::BreakLink() {
  if (ports_[0].transport == nullptr || ports_[1].transport == nullptr) return;
  ReportDown(ports_[0].transport->incarnation(), ports_[1].transport->incarnation());
  ReportDown(ports_[1].transport->incarnation(), ports_[0].transport->incarnation());
}

bool SimulatedNetwork::Released(const Attempt& attempt, uint64_t by) const {
  return std::any_of(releases_.begin(), releases_.end(), [&](const Parties& parties) {
    return parties.attempt == attempt && parties.target == by;
  });
}

SimulatedTransport* SimulatedNetwork::Find(uint64_t incarnation) {
  SimulatedTransport* const there = ports_[static_cast<size_t>(HostOf(incarnation))].transport;
  return there != nullptr && there->incarnation() == incarnation ? there : nullptr;
}

std::optional<TimePoint> SimulatedNetwork::ReadingSince(const std::byte* block) const {
  for (const Read& read : reads_) {
    if (!read.over && block >= read.payload.data() &&
        block < read.payload.data() + read.payload.size()) {
      return read.since;
    }
  }
  return std::nullopt;
}

void SimulatedNetwork::ReportDown(uint64_t to, uint64_t about) {
  notices_.emplace_back(to, about);
  agenda_.After(agenda_.Delay(kLongestNotice), [this, index = notices_.size() - 1] {
    const auto [who, gone] = notices_[index];
    SimulatedTransport* const transport = Find(who);
    if (transport == nullptr) return;
    transport->inbox_.push_back({SimulatedTransport::Mail::Kind::kDown, "", "", gone});
    ports_[static_cast<size_t>(HostOf(who))].wake();
  });
}

void SimulatedNetwork::Carry(uint64_t sender, uint64_t receiver, std::string message) {
  agenda_.Trace([&] {
    const Message decoded = *Decode(AsBytes(message));
    return fmt::format("{:x} -> {:x}: message {} of {}", sender, receiver, decoded.body.index(),
                       ToString(decoded.attempt));
  });
  if (message[kTypeAt] == kReleaseType) {
    releases_.push_back({Decode(AsBytes(message))->attempt, receiver, sender});
  }
  std::string forged = adversity_.forgery > 0 ? Forged(message) : std::string();
  Post({.receiver = receiver, .message = std::move(message), .payload = {}});
  if (!forged.empty()) Post({.receiver = receiver, .message = std::move(forged), .payload = {}});
}

uint64_t SimulatedNetwork::Stranger(int host, const Parties& parties) {
  const std::vector<uint64_t>& earlier = ports_[static_cast<size_t>(host)].earlier;
  uint64_t found = 0;
  if (!earlier.empty()) found = earlier[agenda_.Below(earlier.size())];
  if (found != 0 && found != parties.source && found != parties.target) return found;
  return (agenda_.Random() & ~uint64_t{1}) | static_cast<uint64_t>(host);
}

std::string SimulatedNetwork::Forged(const std::string& bytes) {
  Message message = *Decode(AsBytes(bytes));
  if (std::holds_alternative<OfferMessage>(message.body)) {
    offers_.push_back({message.attempt, message.sender, message.receiver});
  }
  if (offers_.empty() || !agenda_.Chance(adversity_.forgery)) return "";
  const Parties& parties = offers_[agenda_.Below(offers_.size())];
  uint64_t& changed = agenda_.Chance(50) ? message.sender : message.receiver;
  changed = Stranger(HostOf(changed), parties);
  message.attempt = parties.attempt;
  agenda_.Trace([&] {
    return fmt::format("and forged, as {:x} -> {:x} of {}", message.sender, message.receiver,
                       ToString(message.attempt));
  });
  return Encode(message);
}

void SimulatedNetwork::CarryData(Read read) {
  const Duration takes = agenda_.Chance(adversity_.stuck_sends) ? kStuckRead : kLongestRead;
  read.since = agenda_.now();
  reads_.push_back(std::move(read));
  agenda_.After(agenda_.Delay(takes),
                [this, index = static_cast<uint32_t>(reads_.size() - 1)] { EndRead(index); });
}

void SimulatedNetwork::EndRead(uint32_t index) {
  Read& read = reads_[index];
  SimulatedTransport* const sender = Find(read.sender);
  if (sender == nullptr) return;
  read.over = true;
  std::string payload(AsText(read.payload));
  if (agenda_.Chance(adversity_.damage)) payload[agenda_.Below(payload.size())] ^= 1;
  Post({.receiver = read.receiver,
        .is_data = true,
        .message = read.header,
        .payload = std::move(payload)});
  sender->inbox_.push_back({SimulatedTransport::Mail::Kind::kSent, "", "", read.tag});
  ports_[static_cast<size_t>(HostOf(read.sender))].wake();
}

void SimulatedNetwork::Post(Letter letter) {
  if (agenda_.Chance(adversity_.loss)) return;
  if (!letter.is_data && agenda_.Chance(adversity_.damage)) {
    letter.message[agenda_.Below(letter.message.size())] ^= 1;
  }
  Port& port = ports_[static_cast<size_t>(HostOf(letter.receiver))];
  letters_.push_back(std::move(letter));
  for (int copies = agenda_.Chance(adversity_.duplication) ? 2 : 1; copies > 0; --copies) {
    Duration delay = agenda_.Delay(adversity_.longest_delay);
    if (adversity_.in_order) {
      port.last_arrival = std::max(port.last_arrival, agenda_.now() + delay);
      delay = port.last_arrival - agenda_.now();
    }
    agenda_.After(delay,
                  [this, index = static_cast<uint32_t>(letters_.size() - 1)] { Deliver(index); });
  }
}

void SimulatedNetwork::Deliver(uint32_t index) {
  const Letter& letter = letters_[index];
  Port& port = ports_[static_cast<size_t>(HostOf(letter.receiver))];
  if (port.transport == nullptr) return;
  using Kind = SimulatedTransport::Mail::Kind;
  port.transport->inbox_.push_back(
      {letter.is_data ? Kind::kData : Kind::kMessage, letter.message, letter.payload});
  port.wake();
}

absl::StatusOr<PeerId> SimulatedTransport::Connect(const PeerAddress& address) {
  peers_.push_back(address.incarnation);
  if (network_.Find(address.incarnation) == nullptr) {
    network_.ReportDown(incarnation_, address.incarnation);
  }
  return peers_.size();
}

void SimulatedTransport::Send(PeerId peer, std::string message) {
  const uint64_t receiver = peers_[peer - 1];
  if (receiver != 0) network_.Carry(incarnation_, receiver, std::move(message));
}

void SimulatedTransport::SendData(PeerId peer, DataWay, std::string header,
                                  std::span<const std::byte> payload, uint64_t tag) {
  network_.CarryData({.sender = incarnation_,
                      .receiver = peers_[peer - 1],
                      .header = std::move(header),
                      .payload = payload,
                      .tag = tag,
                      .since = {}});
}

absl::StatusOr<std::shared_ptr<const PeerSlab>> SimulatedTransport::MapSlab(
    const PeerAddress& address) {
  const SimulatedTransport* const other = network_.Find(address.incarnation);
  if (other == nullptr) return Gone(address.incarnation);
  return other->shared_slab();
}

bool SimulatedTransport::Progress(TransportEvents& events) {
  const std::vector<Mail> mail = std::exchange(inbox_, {});
  for (const Mail& item : mail) {
    switch (item.kind) {
      case Mail::Kind::kMessage:
        events.OnMessage(AsBytes(item.message));
        break;
      case Mail::Kind::kData:
        if (events.WantsData(AsBytes(item.message), item.payload.size())) {
          events.OnData(AsBytes(item.message), AsBytes(item.payload));
        }
        break;
      case Mail::Kind::kSent:
        events.OnSent(item.number);
        break;
      case Mail::Kind::kDown:
        for (size_t i = 0; i < peers_.size(); ++i) {
          if (peers_[i] != item.number) continue;
          peers_[i] = 0;
          events.OnPeerDown(i + 1, Gone(item.number));
        }
        break;
    }
  }
  return !mail.empty();
}

}  // namespace baton::kv_transfer
