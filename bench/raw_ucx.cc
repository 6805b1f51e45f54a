#include "bench/raw_ucx.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "common/clock.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

constexpr unsigned kPieceId = 1;
constexpr unsigned kAckId = 2;
constexpr size_t kInFlightBytes = 4 << 20;  // as the handoff has at most
constexpr Duration kMostPieceTime = std::chrono::seconds(30);

struct PieceHeader {
  uint64_t offset = 0;
  uint64_t pieces = 0;  // of this batch
};

absl::Status UcxError(ucs_status_t status, std::string_view what) {
  return absl::UnavailableError(fmt::format("raw UCX: {}: {}", what, ucs_status_string(status)));
}

// A context and a worker, as the UCX transport sets them up.
class RawWorker {
 public:
  ~RawWorker() {
    if (worker_ != nullptr) ucp_worker_destroy(worker_);
    if (context_ != nullptr) ucp_cleanup(context_);
  }

  absl::Status Start(const std::string& tls) {
    ucp_config_t* config = nullptr;
    if (const auto status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK) {
      return UcxError(status, "ucp_config_read");
    }
    ucs_status_t status = ucp_config_modify(config, "TLS", tls.c_str());
    const bool memory =
        tls.find("posix") != std::string::npos || tls.find("sysv") != std::string::npos;
    if (status == UCS_OK && memory) status = ucp_config_modify(config, "MM_ERROR_HANDLING", "y");
    if (status == UCS_OK) {
      ucp_params_t params{};
      params.field_mask = UCP_PARAM_FIELD_FEATURES;
      params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
      status = ucp_init(&params, config, &context_);
    }
    ucp_config_release(config);
    if (status != UCS_OK) return UcxError(status, fmt::format("starting with UCX_TLS={}", tls));
    ucp_worker_params_t params{};
    params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
    params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
    status = ucp_worker_create(context_, &params, &worker_);
    return status == UCS_OK ? absl::OkStatus() : UcxError(status, "ucp_worker_create");
  }
  absl::Status Handle(unsigned id, ucp_am_recv_callback_t callback, void* self) {
    ucp_am_handler_param_t param{};
    param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
    param.id = id;
    param.cb = callback;
    param.arg = self;
    param.flags = UCP_AM_FLAG_WHOLE_MSG;
    const auto status = ucp_worker_set_am_recv_handler(worker_, &param);
    return status == UCS_OK ? absl::OkStatus() : UcxError(status, "ucp_worker_set_am_recv_handler");
  }
  ucp_worker_h get() const { return worker_; }

 private:
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
};

// ---- receiver ----

class Receiver final : public RawUcxReceiver {
 public:
  explicit Receiver(std::span<std::byte> slab) : slab_(slab) {}
  ~Receiver() override {
    stopping_ = true;
    if (wake_fd_ >= 0) eventfd_write(wake_fd_, 1);
    if (thread_.joinable()) thread_.join();
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  absl::Status Start(const std::string& tls) {
    BATON_RETURN_IF_ERROR(worker_.Start(tls));
    BATON_RETURN_IF_ERROR(worker_.Handle(kPieceId, &OnPiece, this));
    ucp_address_t* address = nullptr;
    size_t bytes = 0;
    auto status = ucp_worker_get_address(worker_.get(), &address, &bytes);
    if (status != UCS_OK) return UcxError(status, "ucp_worker_get_address");
    address_.assign(reinterpret_cast<const char*>(address), bytes);
    ucp_worker_release_address(worker_.get(), address);
    status = ucp_worker_get_efd(worker_.get(), &worker_fd_);
    if (status != UCS_OK) return UcxError(status, "ucp_worker_get_efd");
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return absl::ResourceExhaustedError("no file descriptor for an eventfd");
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }
  std::string address() const override { return address_; }

 private:
  struct Arrival {
    std::byte* to = nullptr;
    void* data = nullptr;
    size_t bytes = 0;
  };

  static ucs_status_t OnPiece(void* arg, const void* header_bytes, size_t header_size, void* data,
                              size_t bytes, const ucp_am_recv_param_t* param) {
    auto* const self = static_cast<Receiver*>(arg);
    PieceHeader header;
    if (header_size != sizeof header) return UCS_OK;
    std::memcpy(&header, header_bytes, sizeof header);
    if (header.offset > self->slab_.size() || bytes > self->slab_.size() - header.offset) {
      return UCS_OK;
    }
    self->expected_ = header.pieces;
    self->reply_to_ = param->reply_ep;
    std::byte* const to = self->slab_.data() + header.offset;
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
      self->arrivals_.push_back({to, data, bytes});
      return UCS_INPROGRESS;
    }
    std::memcpy(to, data, bytes);
    ++self->landed_;
    return UCS_OK;
  }
  static void OnReceived(void* request, ucs_status_t status, size_t, void* arg) {
    if (status == UCS_OK) ++static_cast<Receiver*>(arg)->landed_;
    ucp_request_free(request);
  }

  void Receive(const Arrival& arrival) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    param.cb.recv_am = &OnReceived;
    param.user_data = this;
    void* const request =
        ucp_am_recv_data_nbx(worker_.get(), arrival.data, arrival.to, arrival.bytes, &param);
    if (request == nullptr) ++landed_;
  }
  void Acknowledge() {
    landed_ = 0;
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    void* const request =
        ucp_am_send_nbx(reply_to_, kAckId, nullptr, 0, &kAck, sizeof kAck, &param);
    if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
  }
  void Run() {
    while (!stopping_) {
      bool busy = ucp_worker_progress(worker_.get()) != 0;
      for (const Arrival& arrival : std::exchange(arrivals_, {})) Receive(arrival);
      if (expected_ > 0 && landed_ == expected_) {
        expected_ = 0;
        Acknowledge();
        busy = true;
      }
      // In the middle of a batch it polls, as a transport in full flow does.
      if (busy || landed_ > 0 || ucp_worker_arm(worker_.get()) != UCS_OK) continue;
      std::array<pollfd, 2> fds = {{{worker_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}}};
      poll(fds.data(), fds.size(), -1);
    }
  }

  static constexpr char kAck = 1;

  const std::span<std::byte> slab_;
  RawWorker worker_;
  std::string address_;
  int worker_fd_ = -1;
  int wake_fd_ = -1;
  uint64_t expected_ = 0, landed_ = 0;  // of the batch
  ucp_ep_h reply_to_ = nullptr;
  std::vector<Arrival> arrivals_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// ---- sender ----

class Sender final : public RawUcxSender {
 public:
  ~Sender() override {
    if (endpoint_ == nullptr) return;
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    void* const request = ucp_ep_close_nbx(endpoint_, &param);
    if (!UCS_PTR_IS_PTR(request)) return;
    while (ucp_request_check_status(request) == UCS_INPROGRESS) ucp_worker_progress(worker_.get());
    ucp_request_free(request);
  }

  absl::Status Connect(const std::string& tls, const std::string& address) {
    BATON_RETURN_IF_ERROR(worker_.Start(tls));
    BATON_RETURN_IF_ERROR(worker_.Handle(kAckId, &OnAck, this));
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                        UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.address = reinterpret_cast<const ucp_address_t*>(address.data());
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.cb = &OnError;
    params.err_handler.arg = this;
    const auto status = ucp_ep_create(worker_.get(), &params, &endpoint_);
    return status == UCS_OK ? absl::OkStatus() : UcxError(status, "ucp_ep_create");
  }

  absl::Status Send(std::span<const std::byte> slab, const std::vector<RawPiece>& pieces) override {
    acknowledged_ = false;
    std::vector<PieceHeader> headers(pieces.size());  // read until their sends are done
    const TimePoint deadline = SystemClock().Now() + kMostPieceTime;
    size_t next = 0;
    while (!acknowledged_ || in_flight_bytes_ > 0) {
      while (next < pieces.size() && in_flight_bytes_ < kInFlightBytes) {
        headers[next] = {pieces[next].offset, pieces.size()};
        Post(slab.subspan(pieces[next].offset, pieces[next].bytes), &headers[next]);
        ++next;
      }
      ucp_worker_progress(worker_.get());
      if (failed_ != UCS_OK) return UcxError(failed_, "the receiver is gone");
      if (SystemClock().Now() > deadline) {
        return absl::DeadlineExceededError(
            fmt::format("raw UCX: {} of {} pieces sent and no answer for {:.0f} s", next,
                        pieces.size(), Seconds(kMostPieceTime)));
      }
    }
    return absl::OkStatus();
  }

 private:
  struct InFlight {
    Sender* sender = nullptr;
    size_t bytes = 0;
  };

  void Post(std::span<const std::byte> payload, const PieceHeader* header) {
    auto in_flight = std::make_unique<InFlight>(InFlight{this, payload.size()});
    ucp_request_param_t param{};
    param.op_attr_mask =
        UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    param.cb.send = &OnSent;
    param.user_data = in_flight.get();
    param.flags = UCP_AM_SEND_FLAG_REPLY;
    void* const request = ucp_am_send_nbx(endpoint_, kPieceId, header, sizeof *header,
                                          payload.data(), payload.size(), &param);
    if (UCS_PTR_IS_ERR(request)) {
      failed_ = UCS_PTR_STATUS(request);
    } else if (request != nullptr) {
      in_flight_bytes_ += payload.size();
      in_flight.release();  // to OnSent
    }
  }
  static void OnSent(void* request, ucs_status_t, void* arg) {
    const std::unique_ptr<InFlight> done(static_cast<InFlight*>(arg));
    done->sender->in_flight_bytes_ -= done->bytes;
    ucp_request_free(request);
  }
  static ucs_status_t OnAck(void* arg, const void*, size_t, void*, size_t,
                            const ucp_am_recv_param_t*) {
    static_cast<Sender*>(arg)->acknowledged_ = true;
    return UCS_OK;
  }
  static void OnError(void* arg, ucp_ep_h, ucs_status_t status) {
    static_cast<Sender*>(arg)->failed_ = status;
  }

  RawWorker worker_;
  ucp_ep_h endpoint_ = nullptr;
  size_t in_flight_bytes_ = 0;
  bool acknowledged_ = false;
  ucs_status_t failed_ = UCS_OK;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RawUcxReceiver>> RawUcxReceiver::Start(const std::string& tls,
                                                                      std::span<std::byte> slab) {
  auto receiver = std::make_unique<Receiver>(slab);
  BATON_RETURN_IF_ERROR(receiver->Start(tls));
  return receiver;
}

absl::StatusOr<std::unique_ptr<RawUcxSender>> RawUcxSender::Connect(const std::string& tls,
                                                                    const std::string& address) {
  auto sender = std::make_unique<Sender>();
  BATON_RETURN_IF_ERROR(sender->Connect(tls, address));
  return sender;
}

}  // namespace baton::bench
