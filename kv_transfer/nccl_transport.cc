#include "kv_transfer/nccl_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/byte_codec.h"
#include "kv_transfer/lane_ends.h"
#include "kv_transfer/lane_messages.h"

namespace baton::kv_transfer {
namespace {

// Each takes 16 MiB of staging memory, and of the GPU's what NCCL takes for a communicator.
constexpr size_t kMostLanes = 64;
// No file descriptor tells when a GPU has done something.
constexpr Duration kWaitWhileMoving = std::chrono::microseconds(50);
constexpr Duration kWaitWhileOpening = std::chrono::milliseconds(1);
// From this version on two ranks may share a GPU.
constexpr int32_t kNcclThatSharesGpus = 23'000;

std::string VersionText(int32_t version) {
  return fmt::format("{}.{}.{}", version / 10'000, version / 100 % 100, version % 100);
}

class NcclTransport final : public Transport, private TransportEvents {
 public:
  NcclTransport(std::unique_ptr<Transport> inner, std::unique_ptr<Gpu> gpu, uint64_t incarnation,
                const LaneTimes& times)
      : times_(times), incarnation_(incarnation), gpu_(std::move(gpu)), inner_(std::move(inner)) {}
  ~NcclTransport() override;

  std::span<std::byte> slab() override { return inner_->slab(); }
  void Describe(PeerAddress& address) const override {
    inner_->Describe(address);
    address.gpu = gpu_->address();
  }
  std::string mapped_name() const override { return inner_->mapped_name(); }
  std::string pulled_name(DataWay way) const override {
    return way == DataWay::kLane ? "nccl" : inner_->pulled_name(way);
  }
  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override;
  void Send(PeerId peer, std::string message) override { inner_->Send(peer, std::move(message)); }
  void SendData(PeerId peer, DataWay way, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override;
  absl::Status OpenLane(PeerId peer) override;
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override {
    return inner_->MapSlab(address);
  }
  bool Progress(TransportEvents& events) override;
  void Wait(Duration longest) override;
  void Wake() override { inner_->Wake(); }

 private:
  struct Sending {  // to a target
    uint64_t lane = 0;
    LaneSender end;
  };
  struct Receiving {  // from a source
    uint64_t lane = 0;
    LaneReceiver end;
    bool told = false;  // that it is open
  };
  // A lane that is being destroyed, and the data that it may be reading meanwhile.
  struct Abort {
    std::shared_ptr<Gpu> gpu;
    std::unique_ptr<GpuLane> lane;
    std::vector<uint64_t> reading;
    std::atomic<bool> over = false;
    std::thread thread;
  };

  void OnMessage(std::span<const std::byte> message) override;
  bool WantsData(std::span<const std::byte> header, size_t bytes) override {
    return events_->WantsData(header, bytes);
  }
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override {
    events_->OnData(header, payload);
  }
  void OnSent(uint64_t tag) override { events_->OnSent(tag); }
  void OnPeerDown(PeerId peer, const absl::Status& why) override;
  void OnLane(PeerId peer, const absl::Status& status) override { events_->OnLane(peer, status); }

  void OnLaneMessage(PeerId peer, const LaneMessage& message);
  absl::Status OpenSending(PeerId peer, uint64_t lane, const std::string& id);
  absl::Status CheckRoom() const;
  bool StepSending(PeerId peer, Sending& sending, TimePoint now);
  bool StepReceiving(PeerId peer, Receiving& receiving, TimePoint now);
  void Tell(PeerId peer, uint64_t lane, decltype(LaneMessage::body) body);
  // The lane in that direction, if there is one, is over.
  void EndSending(PeerId peer);
  void EndReceiving(PeerId peer);
  // It failed while the peer lives; the peer is told unless it said so itself.
  void FailSending(PeerId peer, const absl::Status& why, bool tell_peer = true);
  void FailReceiving(PeerId peer, const absl::Status& why, bool tell_peer = true);
  void StartAbort(std::unique_ptr<GpuLane> lane, std::vector<uint64_t> reading);
  bool TakeEndedAborts();

  const LaneTimes times_;
  const uint64_t incarnation_;
  const std::shared_ptr<Gpu> gpu_;
  const std::unique_ptr<Transport> inner_;
  TransportEvents* events_ = nullptr;
  std::map<PeerId, PeerAddress> peers_;
  std::map<PeerId, Sending> sending_;
  std::map<PeerId, Receiving> receiving_;
  std::vector<std::shared_ptr<Abort>> aborts_;
  std::vector<uint64_t> sent_;                              // not told yet
  std::vector<std::pair<PeerId, absl::Status>> lane_news_;  // likewise
  uint64_t next_lane_ = 1;
};

// ---- start and end ----

NcclTransport::~NcclTransport() {
  for (auto& [peer, sending] : sending_) {
    LaneSender::Remains remains = std::move(sending.end).Abandon();
    StartAbort(std::move(remains.lane), {});
  }
  for (auto& [peer, receiving] : receiving_) StartAbort(std::move(receiving.end).Abandon(), {});
  const TimePoint give_up = SystemClock().Now() + times_.close_wait;
  while (!aborts_.empty() && SystemClock().Now() < give_up) {
    if (!TakeEndedAborts()) std::this_thread::sleep_for(kWaitWhileOpening);
  }
  if (aborts_.empty()) return;
  LogWarning(
      fmt::format("NCCL does not let go of {} lanes within {:.1f} s: they are left to the "
                  "end of the process",
                  aborts_.size(), Seconds(times_.close_wait)));
  for (const auto& abort : aborts_) abort->thread.detach();
}

void NcclTransport::StartAbort(std::unique_ptr<GpuLane> lane, std::vector<uint64_t> reading) {
  auto abort = std::make_shared<Abort>();
  abort->gpu = gpu_;
  abort->lane = std::move(lane);
  abort->reading = std::move(reading);
  abort->thread = std::thread([abort] {
    abort->lane.reset();
    abort->over = true;
  });
  aborts_.push_back(std::move(abort));
}

bool NcclTransport::TakeEndedAborts() {
  const size_t before = aborts_.size();
  std::erase_if(aborts_, [this](const std::shared_ptr<Abort>& abort) {
    if (!abort->over) return false;
    abort->thread.join();
    sent_.insert(sent_.end(), abort->reading.begin(), abort->reading.end());
    return true;
  });
  return aborts_.size() != before;
}

// ---- peers and lanes ----

absl::StatusOr<PeerId> NcclTransport::Connect(const PeerAddress& address) {
  BATON_ASSIGN_OR_RETURN(const PeerId peer, inner_->Connect(address));
  peers_[peer] = address;
  return peer;
}

void NcclTransport::OnPeerDown(PeerId peer, const absl::Status& why) {
  EndSending(peer);
  EndReceiving(peer);
  peers_.erase(peer);
  events_->OnPeerDown(peer, why);
}

absl::Status NcclTransport::CheckRoom() const {
  const size_t lanes = sending_.size() + receiving_.size() + aborts_.size();
  if (lanes < kMostLanes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("{} lanes are open, the most there may be", lanes));
}

absl::Status NcclTransport::OpenLane(PeerId peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return absl::UnavailableError("the peer is gone");
  if (receiving_.contains(peer)) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(CheckLane(gpu_->address(), found->second));
  BATON_RETURN_IF_ERROR(CheckRoom());
  BATON_ASSIGN_OR_RETURN(std::string id, gpu_->NewLaneId());
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<GpuLane> lane, gpu_->OpenLane(id, /*sends=*/false));
  const uint64_t number = next_lane_++;
  receiving_.emplace(peer,
                     Receiving{number, LaneReceiver(std::move(lane), times_, SystemClock().Now())});
  Tell(peer, number, LaneOpen{std::move(id)});
  return absl::OkStatus();
}

absl::Status NcclTransport::OpenSending(PeerId peer, uint64_t lane, const std::string& id) {
  EndSending(peer);  // the target has given an earlier one up
  BATON_RETURN_IF_ERROR(CheckLane(gpu_->address(), peers_.at(peer)));
  BATON_RETURN_IF_ERROR(CheckRoom());
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<GpuLane> end, gpu_->OpenLane(id, /*sends=*/true));
  sending_.emplace(peer, Sending{lane, LaneSender(std::move(end), times_, SystemClock().Now())});
  return absl::OkStatus();
}

void NcclTransport::EndSending(PeerId peer) {
  auto ended = sending_.extract(peer);
  if (ended.empty()) return;
  LaneSender::Remains remains = std::move(ended.mapped().end).Abandon();
  sent_.insert(sent_.end(), remains.unread.begin(), remains.unread.end());
  StartAbort(std::move(remains.lane), std::move(remains.reading));
}

void NcclTransport::EndReceiving(PeerId peer) {
  auto ended = receiving_.extract(peer);
  if (!ended.empty()) StartAbort(std::move(ended.mapped().end).Abandon(), {});
}

void NcclTransport::FailSending(PeerId peer, const absl::Status& why, bool tell_peer) {
  LogWarning(fmt::format("NCCL to '{}' failed: {}", peers_.at(peer).name, why.ToString()));
  if (tell_peer) Tell(peer, sending_.at(peer).lane, LaneDown{std::string(why.message())});
  EndSending(peer);
}

void NcclTransport::FailReceiving(PeerId peer, const absl::Status& why, bool tell_peer) {
  const std::string text(why.message());
  if (tell_peer) Tell(peer, receiving_.at(peer).lane, LaneDown{text});
  lane_news_.emplace_back(
      peer, absl::UnavailableError(fmt::format("NCCL from '{}': {}", peers_.at(peer).name, text)));
  EndReceiving(peer);
}

// ---- messages ----

void NcclTransport::Tell(PeerId peer, uint64_t lane, decltype(LaneMessage::body) body) {
  inner_->Send(peer, Encode(LaneMessage{.sender = incarnation_,
                                        .receiver = peers_.at(peer).incarnation,
                                        .lane = lane,
                                        .body = std::move(body)}));
}

void NcclTransport::OnMessage(std::span<const std::byte> bytes) {
  if (!IsLaneMessage(bytes)) return events_->OnMessage(bytes);
  const absl::StatusOr<LaneMessage> message = DecodeLaneMessage(bytes);
  if (!message.ok()) {
    LogWarning(fmt::format("dropped a message: {}", message.status().ToString()));
    return;
  }
  if (message->receiver != incarnation_) return;  // for who was at this address before
  const auto peer = std::ranges::find_if(
      peers_, [&](const auto& entry) { return entry.second.incarnation == message->sender; });
  if (peer != peers_.end()) OnLaneMessage(peer->first, *message);
}

void NcclTransport::OnLaneMessage(PeerId peer, const LaneMessage& message) {
  const auto to = sending_.find(peer);
  const bool sends = to != sending_.end() && to->second.lane == message.lane;
  const auto from = receiving_.find(peer);
  const bool receives = from != receiving_.end() && from->second.lane == message.lane;
  if (const auto* open = std::get_if<LaneOpen>(&message.body)) {
    if (const absl::Status status = OpenSending(peer, message.lane, open->id); !status.ok()) {
      Tell(peer, message.lane, LaneDown{std::string(status.message())});
    }
  } else if (const auto* piece = std::get_if<LanePiece>(&message.body)) {
    if (!receives) return;
    const absl::Status status = from->second.end.OnPiece(*piece);
    if (!status.ok()) FailReceiving(peer, status);
  } else if (const auto* taken = std::get_if<LaneTaken>(&message.body)) {
    if (!sends) return;
    const absl::Status status = to->second.end.OnTaken(*taken);
    if (!status.ok()) FailSending(peer, status);
  } else if (const auto* down = std::get_if<LaneDown>(&message.body)) {
    const auto why = absl::UnavailableError(fmt::format("the other side gave up: {}", down->why));
    if (sends) FailSending(peer, why, /*tell_peer=*/false);
    if (receives) FailReceiving(peer, why, /*tell_peer=*/false);
  }
}

// ---- data ----

void NcclTransport::SendData(PeerId peer, DataWay way, std::string header,
                             std::span<const std::byte> payload, uint64_t tag) {
  if (way == DataWay::kWire) {
    return inner_->SendData(peer, way, std::move(header), payload, tag);
  }
  const auto found = sending_.find(peer);
  if (found == sending_.end() || payload.empty()) {
    sent_.push_back(tag);
  } else if (payload.size() > kMaxLanePayloadBytes) {
    sent_.push_back(tag);
    FailSending(peer,
                absl::InvalidArgumentError(fmt::format("{} bytes in one run, at most {} go by it",
                                                       payload.size(), kMaxLanePayloadBytes)));
  } else {
    found->second.end.Add(std::move(header), payload, tag);
  }
}

bool NcclTransport::StepSending(PeerId peer, Sending& sending, TimePoint now) {
  LaneSender::Out out;
  const absl::StatusOr<bool> moved = sending.end.Step(now, out);
  for (LanePiece& piece : out.announce) Tell(peer, sending.lane, std::move(piece));
  sent_.insert(sent_.end(), out.sent.begin(), out.sent.end());
  if (!moved.ok()) FailSending(peer, moved.status());
  return !moved.ok() || *moved;
}

bool NcclTransport::StepReceiving(PeerId peer, Receiving& receiving, TimePoint now) {
  const absl::StatusOr<bool> moved = receiving.end.Step(now, *events_);
  if (!moved.ok()) {
    FailReceiving(peer, moved.status());
    return true;
  }
  if (!*moved) return false;
  Tell(peer, receiving.lane, LaneTaken{receiving.end.taken()});
  if (!std::exchange(receiving.told, true)) lane_news_.emplace_back(peer, absl::OkStatus());
  return true;
}

bool NcclTransport::Progress(TransportEvents& events) {
  events_ = &events;
  bool busy = inner_->Progress(*this);
  const TimePoint now = SystemClock().Now();
  // A step may end its own lane, and what it hands on may open others.
  for (auto next = sending_.begin(); next != sending_.end();) {
    const auto it = next++;
    if (!it->second.end.idle()) busy |= StepSending(it->first, it->second, now);
  }
  for (auto next = receiving_.begin(); next != receiving_.end();) {
    const auto it = next++;
    if (!it->second.end.idle()) busy |= StepReceiving(it->first, it->second, now);
  }
  busy |= TakeEndedAborts();
  for (const uint64_t tag : std::exchange(sent_, {})) {
    busy = true;
    events.OnSent(tag);
  }
  for (const auto& [peer, status] : std::exchange(lane_news_, {})) {
    busy = true;
    if (peers_.contains(peer)) events.OnLane(peer, status);
  }
  return busy;
}

void NcclTransport::Wait(Duration longest) {
  if (!sent_.empty() || !lane_news_.empty()) return;
  if (!aborts_.empty()) longest = std::min(longest, kWaitWhileOpening);
  const auto bound = [&longest](const auto& end) {
    if (end.idle()) return;
    longest = std::min(longest, end.opened() ? kWaitWhileMoving : kWaitWhileOpening);
  };
  for (const auto& [peer, sending] : sending_) bound(sending.end);
  for (const auto& [peer, receiving] : receiving_) bound(receiving.end);
  inner_->Wait(longest);
}

}  // namespace

absl::Status CheckLane(const GpuAddress& ours, const PeerAddress& theirs) {
  if (!theirs.gpu.has_value()) {
    return absl::FailedPreconditionError(fmt::format(
        "'{}' does not offer NCCL: it was started with another transport, or found no GPU or no "
        "NCCL",
        theirs.name));
  }
  const GpuAddress& other = *theirs.gpu;
  if (ours.nccl_version != other.nccl_version) {
    return absl::FailedPreconditionError(
        fmt::format("NCCL is {} here and {} at '{}': it needs one version on both sides",
                    VersionText(ours.nccl_version), VersionText(other.nccl_version), theirs.name));
  }
  const bool same_gpu = ours.machine == other.machine && ours.bus_id == other.bus_id;
  if (same_gpu && ours.nccl_version < kNcclThatSharesGpus) {
    return absl::FailedPreconditionError(fmt::format(
        "both workers use GPU {} ({}, {}), which NCCL {} refuses: give each a GPU of its own "
        "(--gpu), or use NCCL 2.30 or later",
        ours.index, ours.name, ours.bus_id, VersionText(ours.nccl_version)));
  }
  return absl::OkStatus();
}

std::unique_ptr<Transport> WithLanes(std::unique_ptr<Transport> inner, std::unique_ptr<Gpu> gpu,
                                     uint64_t incarnation, const LaneTimes& times) {
  return std::make_unique<NcclTransport>(std::move(inner), std::move(gpu), incarnation, times);
}

}  // namespace baton::kv_transfer
