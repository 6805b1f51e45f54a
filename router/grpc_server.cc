#include "router/grpc_server.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

#include "baton/v1/baton.grpc.pb.h"
#include "router/grpc_caller.h"
#include "router/grpc_convert.h"
#include "router/grpc_error.h"
#include "router/grpc_generate.h"
#include "router/kserve_service.h"
#include "worker_link/grpc_credentials.h"

namespace baton::router {
namespace {

constexpr char kServiceName[] = "baton.v1.Baton";
constexpr auto kHealthPeriod = std::chrono::milliseconds(100);
constexpr auto kShutdownGrace = std::chrono::seconds(1);

class BatonService final : public v1::Baton::CallbackService {
 public:
  explicit BatonService(const GrpcBackend& backend)
      : backend_(backend), dispatcher_(backend.dispatcher) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    return StartGenerate(backend_, context, *request);
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    const absl::Status key = CheckKey(backend_.gate, *context);
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    const size_t bytes = request->ByteSizeLong();
    if (!key.ok() || bytes <= kLongRequestBytes) {
      reactor->Finish(ToGrpcStatus(key.ok() ? Tokenized(*request, response) : key));
      return reactor;
    }
    // gRPC keeps the call until Finish.
    const absl::Status taken = backend_.long_work->Do(bytes, [this, request, response, reactor] {
      reactor->Finish(ToGrpcStatus(Tokenized(*request, response)));
    });
    if (!taken.ok()) reactor->Finish(ToGrpcStatus(taken));
    return reactor;
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return Answer(context, [&]() -> absl::Status {
      auto text =
          dispatcher_->Detokenize(request->model(), {request->ids().begin(), request->ids().end()});
      if (!text.ok()) return text.status();
      response->set_text(*std::move(text));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    return Answer(context, [&] {
      for (const ModelInfo& model : dispatcher_->Models()) {
        *response->add_models() = FromModel(model);
      }
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetFleet(grpc::CallbackServerContext* context,
                                     const v1::GetFleetRequest*,
                                     v1::GetFleetResponse* response) override {
    return Answer(context, [&] {
      for (const WorkerView& worker : dispatcher_->Fleet()) {
        *response->add_workers() = FromWorker(worker);
      }
      for (const DiscoveryView& source : dispatcher_->Discovery()) {
        *response->add_discovery() = FromDiscovery(source);
      }
      return absl::OkStatus();
    });
  }

 private:
  absl::Status Tokenized(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const {
    auto input = ToInput(request);
    if (!input.ok()) return input.status();
    const auto tokens = dispatcher_->Tokenize(*input);
    if (!tokens.ok()) return tokens.status();
    response->mutable_ids()->Assign(tokens->begin(), tokens->end());
    return absl::OkStatus();
  }

  template <typename Work>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, Work work) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::Status key = CheckKey(backend_.gate, *context);
    reactor->Finish(ToGrpcStatus(key.ok() ? work() : key));
    return reactor;
  }

  const GrpcBackend backend_;
  Dispatcher* const dispatcher_;
};

// The standard health service's answer for baton.v1.Baton, and for each model by its name, follows
// Dispatcher::Ready; "" is the process itself.
class HealthFollower {
 public:
  HealthFollower(grpc::Server* server, const Dispatcher* dispatcher)
      : health_(server->GetHealthCheckService()), dispatcher_(dispatcher) {
    Follow();  // clients that connect from now on get an answer
    thread_ = std::thread([this] {
      std::unique_lock lock(mutex_);
      while (!stop_.wait_for(lock, kHealthPeriod, [this] { return stopping_; })) Follow();
    });
  }

  ~HealthFollower() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    stop_.notify_all();
    thread_.join();
  }

 private:
  void Follow() {
    const bool ready = dispatcher_->Ready();
    health_->SetServingStatus(kServiceName, ready);
    health_->SetServingStatus(inference::GRPCInferenceService::service_full_name(), ready);
    for (const ModelInfo& model : dispatcher_->Models()) {
      health_->SetServingStatus(model.name, ready);
    }
  }

  grpc::HealthCheckServiceInterface* const health_;
  const Dispatcher* const dispatcher_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

class CallbackServer final : public GrpcServer {
 public:
  CallbackServer(const GrpcOptions& options, Dispatcher* dispatcher)
      : calls_(options.telemetry),
        backend_{dispatcher, options.gate, &calls_, &long_work_, options.limits},
        service_(backend_),
        kserve_(backend_),
        address_(options.address) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(options.address, worker_link::ServerCredentials(options.tls), &port_);
    builder.RegisterService(&service_);
    builder.RegisterService(&kserve_);
    builder.SetMaxReceiveMessageSize(static_cast<int>(
        std::min<size_t>(options.limits.max_body_bytes, std::numeric_limits<int>::max())));
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error
    // A client that vanished without a word is noticed, and its requests end.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) return;
    address_.replace(address_.rfind(':') + 1, std::string::npos, std::to_string(port_));
    health_ = std::make_unique<HealthFollower>(server_.get(), dispatcher);
  }

  ~CallbackServer() override {
    health_.reset();
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  }

  bool listening() const { return health_ != nullptr; }
  std::string address() const override { return address_; }

 private:
  GrpcCalls calls_;
  LongWork long_work_;
  const GrpcBackend backend_;
  BatonService service_;
  KserveService kserve_;
  std::string address_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HealthFollower> health_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Create(const GrpcOptions& options,
                                                               Dispatcher* dispatcher) {
  if (options.address.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a gRPC address; it must be HOST:PORT", options.address));
  }
  auto server = std::make_unique<CallbackServer>(options, dispatcher);
  if (!server->listening()) {
    return absl::UnavailableError(
        fmt::format("cannot listen on the gRPC address {}: it is taken or not of this machine",
                    options.address));
  }
  return server;
}

}  // namespace baton::router
