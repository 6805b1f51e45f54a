#include "worker_link/client.h"

#include <fmt/format.h>
#include <google/protobuf/arena.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "baton/v1/worker.grpc.pb.h"
#include "common/logging.h"
#include "worker_link/convert.h"
#include "worker_link/grpc_credentials.h"
#include "worker_link/limits.h"

namespace baton::worker_link {
namespace {

using std::chrono::milliseconds;

constexpr Duration kFirstPause = milliseconds(50);
constexpr Duration kLongestPause = std::chrono::seconds(2);
constexpr size_t kCommandBatchBytes = size_t{1} << 20;  // commands join a message up to this size

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const ClientSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Each dial is a connection of its own, and its failure is reported at once: the client paces
  // the redials itself.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!security.peer_name.empty()) arguments.SetSslTargetNameOverride(security.peer_name);
  return grpc::CreateCustomChannel(address, ClientCredentials(security.tls), arguments);
}

// One dial and the stream that comes of it. gRPC calls On...(); the client calls the rest from any
// thread. Lifetime: the client's thread keeps it until WaitUntilDone has returned.
class ClientStream final : public grpc::ClientBidiReactor<v1::RouterMessage, v1::WorkerMessage> {
 public:
  ClientStream(const std::string& address, const std::string& router_name,
               const ClientSecurity& security, const std::function<void(ClientInput)>* on_input)
      : address_(address),
        on_input_(on_input),
        channel_(Dial(address, security)),
        stub_(v1::WorkerLink::NewStub(channel_)) {
    outgoing_.mutable_hello()->set_router_name(router_name);
    outgoing_.mutable_hello()->set_protocol(kProtocol);
  }

  void Start();
  bool Send(const Command& command);
  void Cancel() { context_.TryCancel(); }
  // Returns why the stream ended.
  absl::Status WaitUntilDone();
  // After WaitUntilDone: whether WorkerConnected (and so WorkerLost) was given out.
  bool was_connected() const { return was_connected_; }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  struct Waiting {
    v1::RouterMessage message;
    size_t bytes = 0;
  };
  void Read();
  absl::Status TakeMessage();
  void TakeWaitingLocked();
  void CloseLocked();
  void ReleaseLocked();

  const std::string address_;
  const std::function<void(ClientInput)>* const on_input_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerLink::Stub> stub_;
  grpc::ClientContext context_;
  // A message has an object for each token: the arena makes them one.
  google::protobuf::Arena arena_;
  v1::WorkerMessage* incoming_ = nullptr;  // belongs to the read in flight, in the arena
  absl::Status unsound_;        // why a message was not taken; OnReadDone and OnDone touch it
  bool was_connected_ = false;  // likewise

  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;  // between the worker's hello and the stream's end
  bool closed_ = false;
  bool held_ = false;  // gRPC's hold, which allows writes from outside its calls
  bool writing_ = false;
  bool done_ = false;
  v1::RouterMessage outgoing_;  // belongs to the write in flight
  std::deque<Waiting> waiting_;
  size_t waiting_bytes_ = 0;
  absl::Status why_done_;
};

void ClientStream::Start() {
  stub_->async()->Connect(&context_, this);
  AddHold();
  held_ = true;
  writing_ = true;
  StartWrite(&outgoing_);
  Read();
  StartCall();
}

void ClientStream::Read() {
  arena_.Reset();
  incoming_ = google::protobuf::Arena::CreateMessage<v1::WorkerMessage>(&arena_);
  StartRead(incoming_);
}

bool ClientStream::Send(const Command& command) {
  Waiting next;
  ToWire(command, &next.message);
  next.bytes = next.message.ByteSizeLong();
  {
    const std::lock_guard lock(mutex_);
    if (!open_ || waiting_bytes_ + next.bytes > kMaxWaitingBytes) return false;
    if (writing_) {
      waiting_bytes_ += next.bytes;
      waiting_.push_back(std::move(next));
      return true;
    }
    writing_ = true;
    outgoing_ = std::move(next.message);
  }
  // Without the lock: the write sends on this thread, and is often done on another before it
  // returns.
  StartWrite(&outgoing_);
  return true;
}

void ClientStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    if (!ok) CloseLocked();
    if (waiting_.empty()) {
      writing_ = false;
      if (closed_) ReleaseLocked();
      return;
    }
    TakeWaitingLocked();
  }
  StartWrite(&outgoing_);
}

// What has been waiting travels together: a busy moment makes fewer, larger messages.
void ClientStream::TakeWaitingLocked() {
  outgoing_.Clear();
  size_t bytes = 0;
  do {
    Waiting& next = waiting_.front();
    bytes += next.bytes;
    waiting_bytes_ -= next.bytes;
    *outgoing_.mutable_batch()->add_messages() = std::move(next.message);
    waiting_.pop_front();
  } while (!waiting_.empty() && bytes + waiting_.front().bytes <= kCommandBatchBytes);
}

void ClientStream::OnReadDone(bool ok) {
  if (ok) {
    unsound_ = TakeMessage();
    if (unsound_.ok()) {
      Read();
      return;
    }
    context_.TryCancel();
  }
  const std::lock_guard lock(mutex_);
  CloseLocked();
}

absl::Status ClientStream::TakeMessage() {
  const bool hello = incoming_->message_case() == v1::WorkerMessage::kHello;
  if (hello == was_connected_) {
    return absl::InvalidArgumentError(hello ? "a second hello on one stream"
                                            : "the first message is not a hello");
  }
  if (hello) {
    absl::StatusOr<WorkerInfo> info = FromWire(incoming_->hello());
    if (!info.ok()) return info.status();
    {
      const std::lock_guard lock(mutex_);
      open_ = !closed_;
    }
    was_connected_ = true;
    (*on_input_)(WorkerConnected{*std::move(info)});
    return absl::OkStatus();
  }
  if (incoming_->message_case() == v1::WorkerMessage::kEvents) {
    absl::StatusOr<std::vector<Event>> events = FromWire(incoming_->events());
    if (!events.ok()) return events.status();
    (*on_input_)(*std::move(events));
    return absl::OkStatus();
  }
  if (incoming_->message_case() == v1::WorkerMessage::kStatus) {
    absl::StatusOr<WorkerStatus> status = FromWire(incoming_->status());
    if (!status.ok()) return status.status();
    (*on_input_)(*status);
    return absl::OkStatus();
  }
  if (incoming_->message_case() == v1::WorkerMessage::kBlocks) {
    absl::StatusOr<BlockNews> news = FromWire(incoming_->blocks());
    if (!news.ok()) return news.status();
    (*on_input_)(*std::move(news));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("a worker's message without a known kind");
}

void ClientStream::CloseLocked() {
  open_ = false;
  waiting_.clear();
  waiting_bytes_ = 0;
  closed_ = true;
  if (!writing_) ReleaseLocked();
}

void ClientStream::ReleaseLocked() {
  if (std::exchange(held_, false)) RemoveHold();
}

void ClientStream::OnDone(const grpc::Status& status) {
  absl::Status why;
  if (!unsound_.ok()) {
    const auto text = unsound_.message();
    why = absl::Status(unsound_.code(), fmt::format("worker at {} dropped: {}", address_,
                                                    std::string(text.data(), text.size())));
  } else if (status.ok()) {
    why = absl::UnavailableError(fmt::format("worker at {} closed its stream", address_));
  } else {
    why = absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                       fmt::format("worker at {}: {}", address_, status.error_message()));
  }
  const std::lock_guard lock(mutex_);
  why_done_ = std::move(why);
  done_ = true;
  changed_.notify_all();
}

absl::Status ClientStream::WaitUntilDone() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_; });
  return why_done_;
}

// One thread dials, waits for the stream's end, pauses, and dials again.
class LinkClientImpl final : public LinkClient {
 public:
  LinkClientImpl(std::string address, std::string router_name,
                 std::function<void(ClientInput)> on_input, const ClientSecurity& security)
      : address_(std::move(address)),
        router_name_(std::move(router_name)),
        security_(security),
        on_input_(std::move(on_input)),
        dialler_([this] { DialUntilStopped(); }) {}

  ~LinkClientImpl() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      if (stream_ != nullptr) stream_->Cancel();
      wake_.notify_all();
    }
    dialler_.join();
  }

  bool Send(Command command) override {
    std::shared_ptr<ClientStream> stream;
    {
      const std::lock_guard lock(mutex_);
      stream = stream_;
    }
    return stream != nullptr && stream->Send(command);
  }
  const std::string& address() const override { return address_; }

 private:
  void DialUntilStopped();

  const std::string address_;
  const std::string router_name_;
  const ClientSecurity security_;
  const std::function<void(ClientInput)> on_input_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::shared_ptr<ClientStream> stream_;
  std::thread dialler_;  // last: it uses what is above
};

void LinkClientImpl::DialUntilStopped() {
  Duration pause = kFirstPause;
  absl::Status last_failure;
  while (true) {
    auto stream = std::make_shared<ClientStream>(address_, router_name_, security_, &on_input_);
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      stream_ = stream;
      stream->Start();
    }
    const TimePoint dialled = SystemClock().Now();
    const absl::Status why = stream->WaitUntilDone();
    {
      const std::lock_guard lock(mutex_);
      stream_.reset();
      if (stopping_) return;
    }
    if (stream->was_connected() || why != last_failure) {
      LogWarning(fmt::format("link to {} is down: {}", address_, why.ToString()));
      on_input_(WorkerLost{why});
    }
    // A worker that greets and then fails at once is not dialled ever faster.
    if (stream->was_connected() && SystemClock().Now() - dialled > kLongestPause) {
      pause = kFirstPause;
    }
    last_failure = why;
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, pause, [this] { return stopping_; });
    pause = std::min(2 * pause, kLongestPause);
  }
}

}  // namespace

std::unique_ptr<LinkClient> LinkClient::Create(std::string address, std::string router_name,
                                               std::function<void(ClientInput)> on_input,
                                               const ClientSecurity& security) {
  return std::make_unique<LinkClientImpl>(std::move(address), std::move(router_name),
                                          std::move(on_input), security);
}

}  // namespace baton::worker_link
