// The transport over UCX: messages and pulled data as active messages, the slab in shared memory
// for peers on this machine to map.
//
// UCX's callbacks only note what happened; everything is handed on after ucp_worker_progress has
// returned, so no handler runs inside UCX. Pulled data lands in memory of this file, never directly
// in the slab: a transfer can then end at any moment without waiting for UCX to let go of it.

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/byte_codec.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/shared_slab.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {
namespace {

constexpr unsigned kMessageId = 1;
constexpr unsigned kDataId = 2;
constexpr int kProgressRounds = 16;  // before what has come is handed on
constexpr size_t kMostReceivingBytes = 64 << 20;
constexpr Duration kCloseWait = std::chrono::milliseconds(250);
constexpr const char* kKeepaliveInterval = "200ms";
// UCX sends and checks keepalives only while it is called: half the interval, so that a peer's
// death is known after two of them even where nothing else happens.
constexpr Duration kLongestWait = std::chrono::milliseconds(100);

absl::Status UcxError(ucs_status_t status, std::string_view what) {
  return absl::UnavailableError(fmt::format("UCX: {}: {}", what, ucs_status_string(status)));
}

bool Pending(void* request) {
  return request != nullptr && ucp_request_check_status(request) == UCS_INPROGRESS;
}

// Memory for one message or data header while it is sent.
struct Sending {
  class UcxTransport* transport = nullptr;
  std::string bytes;
  bool is_data = false;
  uint64_t tag = 0;
};

struct UcxPeer {
  class UcxTransport* transport = nullptr;
  PeerId id = 0;
  std::string name;
  ucp_ep_h endpoint = nullptr;
};

// Data that has come, or of which the header has come (rendezvous).
struct Arrival {
  std::string header;
  void* data = nullptr;  // UCX's
  size_t bytes = 0;
  bool rendezvous = false;
};
struct Receiving {
  class UcxTransport* transport = nullptr;
  std::string header;
  std::vector<std::byte> buffer;
  size_t bytes = 0;
  ucs_status_t status = UCS_INPROGRESS;
};

class UcxTransport final : public Transport {
 public:
  explicit UcxTransport(std::string tls) : tls_(std::move(tls)) {}
  absl::Status Start(const TransportOptions& options);
  ~UcxTransport() override;

  std::span<std::byte> slab() override { return slab_->bytes(); }
  void Describe(PeerAddress& address) const override {
    address.family = "ucx";
    address.endpoint = worker_address_;
    address.slab_file = slab_->file();
  }
  std::string mapped_name() const override { return "shm"; }
  std::string pulled_name(DataWay) const override { return fmt::format("ucx {}", tls_); }

  absl::StatusOr<PeerId> Connect(const PeerAddress& address) override;
  void Send(PeerId peer, std::string message) override;
  void SendData(PeerId peer, DataWay, std::string header, std::span<const std::byte> payload,
                uint64_t tag) override;
  absl::StatusOr<std::shared_ptr<const PeerSlab>> MapSlab(const PeerAddress& address) override {
    return MapPeerSlab(address);
  }

  bool Progress(TransportEvents& events) override;
  void Wait(Duration longest) override;
  void Wake() override { eventfd_write(wake_fd_, 1); }

 private:
  absl::Status StartContext();
  absl::Status StartWorker();
  absl::Status AddHandler(unsigned id, ucp_am_recv_callback_t callback, uint32_t flags);
  void Post(UcxPeer& peer, unsigned id, std::unique_ptr<Sending> sending,
            std::span<const std::byte> header, std::span<const std::byte> payload, uint32_t flags);
  void Sent(Sending* sending);
  void TakeArrival(const Arrival& arrival, TransportEvents& events);
  void StartReceive(const Arrival& arrival, TransportEvents& events);
  void FinishReceive(Receiving* receiving, TransportEvents& events);
  bool DropFailedPeers(TransportEvents& events);
  void* Close(UcxPeer& peer, uint32_t flags);

  static ucs_status_t OnUcxMessage(void* self, const void* header, size_t header_bytes, void* data,
                                   size_t bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnUcxData(void* self, const void* header, size_t header_bytes, void* data,
                                size_t bytes, const ucp_am_recv_param_t* param);
  static void OnUcxSent(void* request, ucs_status_t status, void* sending);
  static void OnUcxReceived(void* request, ucs_status_t status, size_t bytes, void* receiving);
  static void OnUcxPeerError(void* peer, ucp_ep_h endpoint, ucs_status_t status);

  const std::string tls_;
  std::unique_ptr<SharedSlab> slab_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int worker_fd_ = -1;
  int wake_fd_ = -1;
  std::string worker_address_;

  std::unordered_map<PeerId, std::unique_ptr<UcxPeer>> peers_;
  // Failed ones, which UCX may name until their close has ended.
  std::vector<std::pair<void*, std::unique_ptr<UcxPeer>>> closing_;
  PeerId next_peer_ = 1;

  // What the callbacks noted.
  std::vector<std::string> messages_;
  std::vector<Arrival> arrivals_;
  std::vector<uint64_t> sent_;
  std::vector<Receiving*> received_;
  std::vector<std::pair<PeerId, ucs_status_t>> failed_;

  std::unordered_map<Receiving*, std::unique_ptr<Receiving>> receiving_;
  size_t receiving_bytes_ = 0;
  std::vector<std::vector<std::byte>> spare_buffers_;
  size_t sends_outstanding_ = 0;
};

// ---- start and end ----

absl::Status UcxTransport::Start(const TransportOptions& options) {
  BATON_ASSIGN_OR_RETURN(slab_, SharedSlab::Create(options.slab_bytes, options.incarnation));
  BATON_RETURN_IF_ERROR(StartContext());
  BATON_RETURN_IF_ERROR(StartWorker());
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return absl::ResourceExhaustedError("no file descriptor left for an eventfd");
  return absl::OkStatus();
}

absl::Status UcxTransport::StartContext() {
  ucp_config_t* config = nullptr;
  if (const auto status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK) {
    return UcxError(status, "ucp_config_read");
  }
  // A dead peer shows only at a keepalive where the wire does not tell.
  std::vector<std::pair<const char*, const char*>> settings = {
      {"TLS", tls_.c_str()}, {"KEEPALIVE_INTERVAL", kKeepaliveInterval}};
  // Peer error mode turns UCX's own shared memory off, unless told otherwise. The setting is the
  // one that posix and sysv share: POSIX_ERROR_HANDLING works as an environment variable only.
  if (tls_.find("posix") != std::string::npos || tls_.find("sysv") != std::string::npos) {
    settings.emplace_back("MM_ERROR_HANDLING", "y");
  }
  for (const auto& [key, value] : settings) {
    if (const auto status = ucp_config_modify(config, key, value); status != UCS_OK) {
      ucp_config_release(config);
      return UcxError(status, fmt::format("setting {}={}", key, value));
    }
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.name = "baton-kv";
  const ucs_status_t status = ucp_init(&params, config, &context_);
  ucp_config_release(config);
  if (status != UCS_OK) return UcxError(status, fmt::format("ucp_init with UCX_TLS={}", tls_));
  return absl::OkStatus();
}

absl::Status UcxTransport::StartWorker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  if (const auto status = ucp_worker_create(context_, &params, &worker_); status != UCS_OK) {
    return UcxError(status, "ucp_worker_create");
  }
  BATON_RETURN_IF_ERROR(AddHandler(kMessageId, &OnUcxMessage, UCP_AM_FLAG_WHOLE_MSG));
  BATON_RETURN_IF_ERROR(
      AddHandler(kDataId, &OnUcxData, UCP_AM_FLAG_WHOLE_MSG | UCP_AM_FLAG_PERSISTENT_DATA));
  if (const auto status = ucp_worker_get_efd(worker_, &worker_fd_); status != UCS_OK) {
    return UcxError(status, "ucp_worker_get_efd");
  }
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  if (const auto status = ucp_worker_get_address(worker_, &address, &bytes); status != UCS_OK) {
    return UcxError(status, "ucp_worker_get_address");
  }
  worker_address_.assign(reinterpret_cast<const char*>(address), bytes);
  ucp_worker_release_address(worker_, address);
  return absl::OkStatus();
}

absl::Status UcxTransport::AddHandler(unsigned id, ucp_am_recv_callback_t callback,
                                      uint32_t flags) {
  ucp_am_handler_param_t param{};
  param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                     UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  param.id = id;
  param.cb = callback;
  param.arg = this;
  param.flags = flags;
  const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_, &param);
  return status == UCS_OK ? absl::OkStatus() : UcxError(status, "ucp_worker_set_am_recv_handler");
}

UcxTransport::~UcxTransport() {
  // What was said last goes out, unless the peer does not take it.
  for (auto& [id, peer] : peers_) closing_.emplace_back(Close(*peer, 0), std::move(peer));
  const TimePoint give_up = SystemClock().Now() + kCloseWait;
  const auto busy = [this] {
    return sends_outstanding_ > 0 ||
           std::any_of(closing_.begin(), closing_.end(),
                       [](const auto& entry) { return Pending(entry.first); });
  };
  while (SystemClock().Now() < give_up && busy()) ucp_worker_progress(worker_);
  if (wake_fd_ >= 0) close(wake_fd_);
  if (busy() || !receiving_.empty()) {
    // UCX 1.13 aborts the process when a worker is destroyed under requests that have not ended.
    // Left alone it does nothing: nobody calls it any more, and its sockets close with the process.
    LogWarning("a peer does not answer: the UCX worker is left to the end of the process");
    for (auto& [receiving, owned] : receiving_) owned.release();
    for (auto& [request, peer] : closing_) peer.release();
    return;
  }
  for (const auto& [request, peer] : closing_) {
    if (request != nullptr) ucp_request_free(request);
  }
  for (const Arrival& arrival : arrivals_) ucp_am_data_release(worker_, arrival.data);
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

// ---- peers ----

absl::StatusOr<PeerId> UcxTransport::Connect(const PeerAddress& address) {
  auto peer = std::make_unique<UcxPeer>(UcxPeer{this, next_peer_++, address.name, nullptr});
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.endpoint.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &OnUcxPeerError;
  params.err_handler.arg = peer.get();
  if (const auto status = ucp_ep_create(worker_, &params, &peer->endpoint); status != UCS_OK) {
    return UcxError(status, fmt::format("connecting to '{}' over {}", address.name, tls_));
  }
  const PeerId id = peer->id;
  peers_[id] = std::move(peer);
  return id;
}

void* UcxTransport::Close(UcxPeer& peer, uint32_t flags) {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = flags;
  void* const request = ucp_ep_close_nbx(peer.endpoint, &param);
  return UCS_PTR_IS_PTR(request) ? request : nullptr;
}

void UcxTransport::OnUcxPeerError(void* arg, ucp_ep_h, ucs_status_t status) {
  const auto* const peer = static_cast<const UcxPeer*>(arg);
  peer->transport->failed_.emplace_back(peer->id, status);
}

bool UcxTransport::DropFailedPeers(TransportEvents& events) {
  std::erase_if(closing_, [](const auto& entry) {
    if (Pending(entry.first)) return false;
    if (entry.first != nullptr) ucp_request_free(entry.first);
    return true;
  });
  const auto failed = std::exchange(failed_, {});
  for (const auto& [id, status] : failed) {
    const auto found = peers_.find(id);
    if (found == peers_.end()) continue;
    const absl::Status why =
        UcxError(status, fmt::format("connection to '{}' lost", found->second->name));
    closing_.emplace_back(Close(*found->second, UCP_EP_CLOSE_FLAG_FORCE), std::move(found->second));
    peers_.erase(found);
    events.OnPeerDown(id, why);
  }
  return !failed.empty();
}

// ---- sending ----

void UcxTransport::Send(PeerId id, std::string message) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  auto sending = std::make_unique<Sending>(Sending{this, std::move(message), false, 0});
  const std::span<const std::byte> bytes = AsBytes(sending->bytes);
  // Eager messages to one peer stay in order; a rendezvous could be overtaken.
  Post(*found->second, kMessageId, std::move(sending), {}, bytes, UCP_AM_SEND_FLAG_EAGER);
}

void UcxTransport::SendData(PeerId id, DataWay, std::string header,
                            std::span<const std::byte> payload, uint64_t tag) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) {
    sent_.push_back(tag);
    return;
  }
  auto sending = std::make_unique<Sending>(Sending{this, std::move(header), true, tag});
  const std::span<const std::byte> bytes = AsBytes(sending->bytes);
  Post(*found->second, kDataId, std::move(sending), bytes, payload, 0);
}

void UcxTransport::Post(UcxPeer& peer, unsigned id, std::unique_ptr<Sending> sending,
                        std::span<const std::byte> header, std::span<const std::byte> payload,
                        uint32_t flags) {
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.cb.send = &OnUcxSent;
  param.user_data = sending.get();
  param.flags = flags;
  void* const request = ucp_am_send_nbx(peer.endpoint, id, header.data(), header.size(),
                                        payload.data(), payload.size(), &param);
  ++sends_outstanding_;
  // Done already, well or badly: bad ends show as a lost peer.
  if (!UCS_PTR_IS_PTR(request)) return Sent(sending.release());
  sending.release();  // to OnUcxSent
}

void UcxTransport::OnUcxSent(void* request, ucs_status_t, void* arg) {
  auto* const sending = static_cast<Sending*>(arg);
  sending->transport->Sent(sending);
  ucp_request_free(request);
}

void UcxTransport::Sent(Sending* sending) {
  const std::unique_ptr<Sending> done(sending);
  --sends_outstanding_;
  if (done->is_data) sent_.push_back(done->tag);
}

// ---- receiving ----

ucs_status_t UcxTransport::OnUcxMessage(void* self, const void*, size_t, void* data, size_t bytes,
                                        const ucp_am_recv_param_t* param) {
  // Messages are sent eagerly: a rendezvous is not one of ours.
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || bytes > kMaxMessageBytes) {
    return UCS_OK;
  }
  static_cast<UcxTransport*>(self)->messages_.emplace_back(static_cast<const char*>(data), bytes);
  return UCS_OK;
}

ucs_status_t UcxTransport::OnUcxData(void* self, const void* header, size_t header_bytes,
                                     void* data, size_t bytes, const ucp_am_recv_param_t* param) {
  const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  static_cast<UcxTransport*>(self)->arrivals_.push_back(
      {std::string(static_cast<const char*>(header), header_bytes), data, bytes, rendezvous});
  return UCS_INPROGRESS;  // kept until ucp_am_data_release or ucp_am_recv_data_nbx
}

void UcxTransport::TakeArrival(const Arrival& arrival, TransportEvents& events) {
  if (arrival.rendezvous && events.WantsData(AsBytes(arrival.header), arrival.bytes) &&
      receiving_bytes_ + arrival.bytes <= kMostReceivingBytes) {
    StartReceive(arrival, events);
    return;
  }
  if (!arrival.rendezvous && events.WantsData(AsBytes(arrival.header), arrival.bytes)) {
    events.OnData(AsBytes(arrival.header),
                  {static_cast<const std::byte*>(arrival.data), arrival.bytes});
  }
  ucp_am_data_release(worker_, arrival.data);
}

void UcxTransport::StartReceive(const Arrival& arrival, TransportEvents& events) {
  auto owned = std::make_unique<Receiving>();
  Receiving* const receiving = owned.get();
  receiving->transport = this;
  receiving->header = arrival.header;
  receiving->bytes = arrival.bytes;
  if (!spare_buffers_.empty()) {
    receiving->buffer = std::move(spare_buffers_.back());
    spare_buffers_.pop_back();
  }
  if (receiving->buffer.size() < arrival.bytes) receiving->buffer.resize(arrival.bytes);
  receiving_bytes_ += arrival.bytes;
  receiving_[receiving] = std::move(owned);
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  param.cb.recv_am = &OnUcxReceived;
  param.user_data = receiving;
  void* const request =
      ucp_am_recv_data_nbx(worker_, arrival.data, receiving->buffer.data(), arrival.bytes, &param);
  if (!UCS_PTR_IS_PTR(request)) {
    receiving->status = UCS_PTR_STATUS(request);
    FinishReceive(receiving, events);
  }
}

void UcxTransport::OnUcxReceived(void* request, ucs_status_t status, size_t bytes, void* arg) {
  auto* const receiving = static_cast<Receiving*>(arg);
  const bool whole = bytes == receiving->bytes;
  receiving->status = status == UCS_OK && !whole ? UCS_ERR_MESSAGE_TRUNCATED : status;
  receiving->transport->received_.push_back(receiving);
  ucp_request_free(request);
}

void UcxTransport::FinishReceive(Receiving* receiving, TransportEvents& events) {
  const auto node = receiving_.extract(receiving);
  receiving_bytes_ -= receiving->bytes;
  if (receiving->status == UCS_OK) {
    events.OnData(AsBytes(receiving->header),
                  std::span<const std::byte>(receiving->buffer).first(receiving->bytes));
  }
  spare_buffers_.push_back(std::move(receiving->buffer));
}

// ---- the thread's round ----

bool UcxTransport::Progress(TransportEvents& events) {
  bool busy = false;
  for (int round = 0; round < kProgressRounds && ucp_worker_progress(worker_) != 0; ++round) {
    busy = true;
  }
  for (const std::string& message : std::exchange(messages_, {})) {
    busy = true;
    events.OnMessage(AsBytes(message));
  }
  for (const Arrival& arrival : std::exchange(arrivals_, {})) {
    busy = true;
    TakeArrival(arrival, events);
  }
  for (Receiving* const receiving : std::exchange(received_, {})) {
    busy = true;
    FinishReceive(receiving, events);
  }
  for (const uint64_t tag : std::exchange(sent_, {})) {
    busy = true;
    events.OnSent(tag);
  }
  busy |= DropFailedPeers(events);
  return busy;
}

void UcxTransport::Wait(Duration longest) {
  // What calls have noted since the last Progress does not show in the file descriptors.
  if (!messages_.empty() || !arrivals_.empty() || !received_.empty() || !sent_.empty() ||
      !failed_.empty()) {
    return;
  }
  if (ucp_worker_arm(worker_) != UCS_OK) return;  // something has come in between
  std::array<pollfd, 2> fds = {{{worker_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}}};
  const auto nanoseconds = (peers_.empty() ? longest : std::min(longest, kLongestWait)).count();
  const timespec timeout{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  ppoll(fds.data(), fds.size(), &timeout, nullptr);
  eventfd_t ignored = 0;
  if ((fds[1].revents & POLLIN) != 0) eventfd_read(wake_fd_, &ignored);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const TransportOptions& options) {
  // Named, never left to UCX's estimates: "all" would take shared memory for pulled data, too.
  auto transport =
      std::make_unique<UcxTransport>(options.ucx_tls.empty() ? "tcp" : options.ucx_tls);
  BATON_RETURN_IF_ERROR(transport->Start(options));
  return transport;
}

}  // namespace baton::kv_transfer
