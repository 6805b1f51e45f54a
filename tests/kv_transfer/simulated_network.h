#pragma once

// The network between the processes of a simulation, and their ends of it. It does what networks
// and broken peers do: it loses, repeats, damages, delays and reorders messages and data, brings
// what was meant for a process that has ended to the one that came after it at the same place, and
// carries messages that claim to come from a process that is gone.

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kv_transfer/transport.h"
#include "tests/kv_transfer/agenda.h"

namespace baton::kv_transfer {

// How bad it gets. Chances are in percent.
struct Adversity {
  int loss = 0, duplication = 0, damage = 0;              // of messages and data
  int forgery = 0;                                        // a message is followed by a forged one
  Duration longest_delay = std::chrono::milliseconds(1);  // each message its own: they overtake
  bool in_order = false;                                  // they do not
  int stuck_sends = 0;                 // the transport goes on reading the blocks
  int cancels = 0;                     // by either worker, each up to three times
  int refuses = 0, never_answers = 0;  // by the target's worker
  int new_epochs = 0;                  // begun while the older one runs
  int link_breaks = 0, crashes = 0, shutdowns = 0;
};

inline constexpr int kHosts = 2;
// A process, by its incarnation; the host on which it runs is its lowest bit.
inline int HostOf(uint64_t incarnation) { return static_cast<int>(incarnation & 1); }

class SimulatedSlab final : public PeerSlab {
 public:
  explicit SimulatedSlab(size_t bytes) : bytes_(bytes) {}
  std::span<std::byte> writable() { return bytes_; }
  std::span<const std::byte> bytes() const override { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class SimulatedTransport;

class SimulatedNetwork {
 public:
  SimulatedNetwork(Agenda& agenda, const Adversity& adversity)
      : agenda_(agenda), adversity_(adversity) {}

  // A process begins, ends. `wake` is called after something has come for it.
  void Plug(SimulatedTransport& transport, std::function<void()> wake);
  void Unplug(int host);
  // Each side notices at a time of its own.
  void BreakLink();

  // Whether the process has told the source that the attempt is over.
  bool Released(const Attempt& attempt, uint64_t by) const;
  // Null when the process has ended.
  SimulatedTransport* Find(uint64_t incarnation);
  // Since when the transport has been reading this block of a process, which may be let go only
  // after that or a lease later; empty when it is not being read.
  std::optional<TimePoint> ReadingSince(const std::byte* block) const;

 private:
  friend class SimulatedTransport;
  struct Letter {
    uint64_t receiver = 0;
    bool is_data = false;
    std::string message;  // or the header of `payload`
    std::string payload;
  };
  struct Read {
    uint64_t sender = 0, receiver = 0;
    std::string header;
    std::span<const std::byte> payload;
    uint64_t tag = 0;
    TimePoint since;
    bool over = false;
  };
  struct Parties {
    Attempt attempt;
    uint64_t source = 0, target = 0;
  };
  struct Port {
    SimulatedTransport* transport = nullptr;
    std::function<void()> wake;
    TimePoint last_arrival;
    std::vector<uint64_t> earlier;  // processes that ran here
  };

  void Carry(uint64_t sender, uint64_t receiver, std::string message);
  void CarryData(Read read);
  void EndRead(uint32_t index);
  void Post(Letter letter);
  void Deliver(uint32_t index);
  void ReportDown(uint64_t to, uint64_t about);
  // The message as if somebody had sent it, or it were meant for somebody, who has no part in the
  // attempt that it names, which may be another one than before.
  std::string Forged(const std::string& message);
  uint64_t Stranger(int host, const Parties& parties);

  Agenda& agenda_;
  const Adversity& adversity_;
  std::array<Port, kHosts> ports_;
  std::vector<Letter> letters_;
  std::vector<Read> reads_;
  std::vector<std::pair<uint64_t, uint64_t>> notices_;
  std::vector<Parties> offers_, releases_;  // seen
};

class SimulatedTransport final : public Transport {
 public:
  SimulatedTransport(SimulatedNetwork& network, Agenda& agenda, uint64_t incarnation,
                     size_t slab_bytes)
      : network_(network),
        agenda_(agenda),
        incarnation_(incarnation),
        slab_(std::make_shared<SimulatedSlab>(slab_bytes)) {}

  uint64_t incarnation() const { return incarnation_; }
  std::shared_ptr<const PeerSlab> shared_slab() const { return slab_; }

  std::span<std::byte> slab() override { return slab_->writable(); }
  void Describe(PeerAddress& address) const override { address.family = "simulated"; }
  std::string mapped_name() const override { return "mapped"; }
  std::string pulled_name(DataWay) const override { return "pulled"; }
  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override;
  void Send(PeerId peer, std::string message) override;
  void SendData(PeerId peer, DataWay, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override;
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override;
  bool Progress(TransportEvents& events) override;
  // What the others do meanwhile happens.
  void Wait(Duration longest) override { agenda_.RunFor(longest); }
  void Wake() override {}

 private:
  friend class SimulatedNetwork;
  struct Mail {
    enum class Kind { kMessage, kData, kSent, kDown } kind;
    std::string message, payload;
    uint64_t number = 0;  // the tag, or who is gone
  };

  SimulatedNetwork& network_;
  Agenda& agenda_;
  const uint64_t incarnation_;
  const std::shared_ptr<SimulatedSlab> slab_;
  std::vector<uint64_t> peers_;  // PeerId - 1 -> incarnation, 0 when down
  std::vector<Mail> inbox_;
};

}  // namespace baton::kv_transfer
