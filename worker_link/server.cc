#include "worker_link/server.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include "baton/v1/worker.grpc.pb.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "worker_link/convert.h"
#include "worker_link/grpc_credentials.h"
#include "worker_link/limits.h"
#include "worker_link/outbox.h"

namespace baton::worker_link {
namespace {

class Registry;

// One router's stream. gRPC calls On...(); the server calls the rest from any thread.
//
// Lifetime: the registry and the reactor itself (`self_`) share it; OnDone, gRPC's last call, drops
// both. `mutex_` guards everything below it and is never held while `on_input` runs.
class ServerStream final : public grpc::ServerBidiReactor<v1::RouterMessage, v1::WorkerMessage> {
 public:
  ServerStream(Registry* registry, grpc::CallbackServerContext* context, LinkId link)
      : registry_(registry), context_(context), link_(link), peer_(context->peer()) {}

  // Second half of construction: takes the first read, and holds itself until OnDone.
  void Start(std::shared_ptr<ServerStream> self) {
    self_ = std::move(self);
    StartRead(&incoming_);
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

  void Push(const std::vector<Event>& events);
  void PushStatus(const WorkerStatus& status);
  void TellBlocks();
  // Ends the stream, once everything that waits has been written unless that is to be dropped.
  void Close(grpc::Status status, bool drop_waiting);

 private:
  enum class Phase { kExpectHello, kOpen, kClosing, kFinished };

  absl::Status TakeMessage();
  absl::Status TakeHello();
  absl::Status TakeCommand(const v1::RouterMessage& message);
  void ReportLost();
  void AdvanceLocked();
  bool TakeNextLocked();
  bool TakeBlocksLocked();

  Registry* const registry_;
  grpc::CallbackServerContext* const context_;
  const LinkId link_;
  const std::string peer_;
  std::shared_ptr<ServerStream> self_;
  v1::RouterMessage incoming_;  // belongs to the read in flight
  // LinkOpened was given out, LinkLost not yet. Only OnReadDone and OnDone touch it.
  bool announced_ = false;

  std::mutex mutex_;
  Phase phase_ = Phase::kExpectHello;
  bool writing_ = false;
  bool hello_due_ = false;
  Outbox outbox_;
  std::optional<BlockJournal::Reader> blocks_;  // of a router that asked for them
  bool blocks_due_ = false;                     // there may be news
  bool blocks_turn_ = false;                    // they and the events take turns
  v1::WorkerMessage outgoing_;                  // belongs to the write in flight
  grpc::Status final_status_;
};

// The streams that exist, and what every stream needs.
class Registry {
 public:
  Registry(const WorkerInfo& info, std::function<bool(LinkInput)> on_input,
           const BlockJournal* journal)
      : on_input_(std::move(on_input)), name_(info.name), journal_(journal) {
    ToWire(info, hello_.mutable_hello());
  }

  const v1::WorkerMessage& hello() const { return hello_; }
  const std::string& name() const { return name_; }
  const BlockJournal* journal() const { return journal_; }
  bool Input(LinkInput input) { return on_input_(std::move(input)); }

  ServerStream* Open(grpc::CallbackServerContext* context) {
    std::shared_ptr<ServerStream> stream;
    bool full = false;
    {
      const std::lock_guard lock(mutex_);
      full = streams_.size() >= kMaxRouters;
      const LinkId link = ++last_link_;
      stream = std::make_shared<ServerStream>(this, context, link);
      streams_.emplace(link, stream);
    }
    stream->Start(stream);
    if (full) {
      stream->Close(
          {grpc::StatusCode::RESOURCE_EXHAUSTED,
           fmt::format("worker {} serves {} routers, the most it takes", name_, kMaxRouters)},
          /*drop_waiting=*/true);
    }
    return stream.get();
  }
  void Forget(LinkId link) {
    const std::lock_guard lock(mutex_);
    streams_.erase(link);
    if (streams_.empty()) empty_.notify_all();
  }
  std::shared_ptr<ServerStream> Find(LinkId link) {
    const std::lock_guard lock(mutex_);
    const auto found = streams_.find(link);
    return found == streams_.end() ? nullptr : found->second;
  }
  std::vector<std::shared_ptr<ServerStream>> All() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<ServerStream>> streams;
    for (const auto& [link, stream] : streams_) streams.push_back(stream);
    return streams;
  }
  void WaitUntilEmpty() {
    std::unique_lock lock(mutex_);
    empty_.wait(lock, [this] { return streams_.empty(); });
  }

  void KeepStatus(const WorkerStatus& status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
  }
  std::optional<WorkerStatus> status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  const std::function<bool(LinkInput)> on_input_;
  const std::string name_;
  const BlockJournal* const journal_;
  v1::WorkerMessage hello_;
  std::mutex mutex_;
  std::condition_variable empty_;
  LinkId last_link_ = 0;
  std::map<LinkId, std::shared_ptr<ServerStream>> streams_;
  std::optional<WorkerStatus> status_;
};

void ServerStream::OnReadDone(bool ok) {
  if (!ok) {
    // The router closed its half, or the connection is gone.
    Close(grpc::Status::OK, /*drop_waiting=*/true);
    return;
  }
  if (absl::Status status = TakeMessage(); !status.ok()) {
    LogError(fmt::format("router stream from {} closed: {}", peer_, status.ToString()));
    ReportLost();
    const auto text = status.message();
    Close({static_cast<grpc::StatusCode>(status.code()), std::string(text.data(), text.size())},
          /*drop_waiting=*/true);
    return;
  }
  StartRead(&incoming_);
}

absl::Status ServerStream::TakeMessage() {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kExpectHello && phase_ != Phase::kOpen) return absl::OkStatus();
  }
  if (!announced_) return TakeHello();
  if (incoming_.message_case() != v1::RouterMessage::kBatch) return TakeCommand(incoming_);
  for (const v1::RouterMessage& message : incoming_.batch().messages()) {
    BATON_RETURN_IF_ERROR(TakeCommand(message));
  }
  return absl::OkStatus();
}

absl::Status ServerStream::TakeCommand(const v1::RouterMessage& message) {
  absl::StatusOr<Command> command = CommandFromWire(message);
  if (!command.ok()) return command.status();
  if (std::holds_alternative<TellBlocksCommand>(*command)) {
    const std::lock_guard lock(mutex_);
    if (registry_->journal() != nullptr) blocks_.emplace();
    blocks_due_ = blocks_.has_value();
    AdvanceLocked();
    return absl::OkStatus();
  }
  const bool request = IsRequest(*command);
  const std::optional<Attempt> attempt = AttemptOf(*command);
  if (registry_->Input(LinkCommand{link_, *std::move(command)})) return absl::OkStatus();
  // A lost cancel would leave its attempt running: losing the link cancels them all.
  if (!request) return absl::ResourceExhaustedError("the worker's queue has no room for a cancel");
  Push({FailedEvent{*attempt, absl::ResourceExhaustedError(fmt::format(
                                  "worker {}: its command queue is full", registry_->name()))}});
  return absl::OkStatus();
}

absl::Status ServerStream::TakeHello() {
  if (incoming_.message_case() != v1::RouterMessage::kHello) {
    return absl::InvalidArgumentError("the first message is not a hello");
  }
  const v1::RouterHello& hello = incoming_.hello();
  BATON_RETURN_IF_ERROR(
      CheckLength("router_name", hello.router_name().size(), kMaxNameBytes, "bytes"));
  if (hello.protocol() != kProtocol) {
    return absl::FailedPreconditionError(fmt::format(
        "the router speaks protocol {}, this worker speaks {}", hello.protocol(), kProtocol));
  }
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kExpectHello) return absl::OkStatus();
    phase_ = Phase::kOpen;
    hello_due_ = true;
    if (const auto status = registry_->status()) outbox_.PushStatus(*status);
    AdvanceLocked();
  }
  announced_ = true;
  registry_->Input(LinkOpened{link_, hello.router_name()});
  return absl::OkStatus();
}

void ServerStream::Push(const std::vector<Event>& events) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  if (outbox_.PushEvents(events)) {
    AdvanceLocked();
    return;
  }
  LogError(fmt::format("router stream from {} cut off: {} bytes wait for it, at most {} may", peer_,
                       outbox_.waiting_bytes(), kMaxWaitingBytes));
  outbox_ = Outbox();
  phase_ = Phase::kClosing;
  final_status_ = {grpc::StatusCode::RESOURCE_EXHAUSTED, "the router does not read"};
  context_->TryCancel();  // ends the write in flight, which the router does not take
  AdvanceLocked();
}

void ServerStream::PushStatus(const WorkerStatus& status) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  outbox_.PushStatus(status);
  AdvanceLocked();
}

void ServerStream::TellBlocks() {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kOpen || !blocks_) return;
  blocks_due_ = true;
  AdvanceLocked();
}

bool ServerStream::TakeBlocksLocked() {
  if (!blocks_due_ || phase_ != Phase::kOpen) return false;
  BlockNews news;
  blocks_due_ = registry_->journal()->Read(&*blocks_, &news);
  if (!blocks_due_) return false;
  outgoing_.Clear();
  ToWire(news, outgoing_.mutable_blocks());
  return true;
}

bool ServerStream::TakeNextLocked() {
  blocks_turn_ = !blocks_turn_;
  if (blocks_turn_ && TakeBlocksLocked()) return true;
  return outbox_.Take(&outgoing_) || TakeBlocksLocked();
}

void ServerStream::Close(grpc::Status status, bool drop_waiting) {
  const std::lock_guard lock(mutex_);
  if (phase_ == Phase::kFinished) return;
  if (phase_ != Phase::kClosing) final_status_ = std::move(status);
  phase_ = Phase::kClosing;
  if (drop_waiting) {
    outbox_ = Outbox();
    hello_due_ = false;
  }
  AdvanceLocked();
}

// Starts the next write, or finishes a closing stream that has none.
void ServerStream::AdvanceLocked() {
  if (writing_ || phase_ == Phase::kExpectHello || phase_ == Phase::kFinished) return;
  if (hello_due_) {
    outgoing_ = registry_->hello();
    hello_due_ = false;
    writing_ = true;
  } else {
    writing_ = TakeNextLocked();
  }
  if (writing_) {
    StartWrite(&outgoing_);
  } else if (phase_ == Phase::kClosing) {
    phase_ = Phase::kFinished;
    Finish(final_status_);
  }
}

void ServerStream::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  writing_ = false;
  if (!ok) {
    if (phase_ == Phase::kOpen) phase_ = Phase::kClosing;
    outbox_ = Outbox();
    hello_due_ = false;
  }
  AdvanceLocked();
}

void ServerStream::ReportLost() {
  if (std::exchange(announced_, false)) registry_->Input(LinkLost{link_});
}

void ServerStream::OnDone() {
  ReportLost();
  const std::shared_ptr<ServerStream> self = std::move(self_);
  registry_->Forget(link_);
}

class LinkServerImpl final : public LinkServer {
 public:
  LinkServerImpl(const WorkerInfo& info, std::function<bool(LinkInput)> on_input,
                 const BlockJournal* journal)
      : registry_(info, std::move(on_input), journal), service_(&registry_) {}
  ~LinkServerImpl() override;

  absl::Status Listen(const std::string& address, const TlsFiles& tls);
  std::string address() const override { return address_; }
  void Send(LinkId link, std::vector<Event> events) override;
  void SetStatus(const WorkerStatus& status) override;
  void TellBlocks() override;

 private:
  class Service final : public v1::WorkerLink::CallbackService {
   public:
    explicit Service(Registry* registry) : registry_(registry) {}
    grpc::ServerBidiReactor<v1::RouterMessage, v1::WorkerMessage>* Connect(
        grpc::CallbackServerContext* context) override {
      return registry_->Open(context);
    }

   private:
    Registry* registry_;
  };

  Registry registry_;
  Service service_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

absl::Status LinkServerImpl::Listen(const std::string& address, const TlsFiles& tls) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error
  builder.AddListeningPort(address, ServerCredentials(tls), &port);
  builder.RegisterService(&service_);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kKeepaliveTimeMs / 2);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // Only reflection is served by threads of its own.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError(fmt::format(
        "worker cannot listen on {}: the address is taken or not this machine's", address));
  }
  server_->GetHealthCheckService()->SetServingStatus(v1::WorkerLink::service_full_name(), true);
  address_ = fmt::format("{}:{}", address.substr(0, address.rfind(':')), port);
  return absl::OkStatus();
}

LinkServerImpl::~LinkServerImpl() {
  if (server_ == nullptr) return;
  for (const auto& stream : registry_.All()) {
    stream->Close(grpc::Status::OK, /*drop_waiting=*/false);
  }
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  registry_.WaitUntilEmpty();
  server_->Wait();
}

void LinkServerImpl::Send(LinkId link, std::vector<Event> events) {
  if (const auto stream = registry_.Find(link)) stream->Push(events);
}

void LinkServerImpl::SetStatus(const WorkerStatus& status) {
  registry_.KeepStatus(status);
  for (const auto& stream : registry_.All()) stream->PushStatus(status);
}

void LinkServerImpl::TellBlocks() {
  for (const auto& stream : registry_.All()) stream->TellBlocks();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LinkServer>> LinkServer::Create(
    const std::string& address, const WorkerInfo& info, std::function<bool(LinkInput)> on_input,
    const TlsFiles& tls, const BlockJournal* journal) {
  if (address.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("listen address '{}' is not of the form HOST:PORT", address));
  }
  auto server = std::make_unique<LinkServerImpl>(info, std::move(on_input), journal);
  if (absl::Status status = server->Listen(address, tls); !status.ok()) return status;
  return server;
}

}  // namespace baton::worker_link
