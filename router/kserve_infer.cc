#include "router/kserve_infer.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "router/grpc_caller.h"
#include "router/grpc_error.h"
#include "router/kserve_convert.h"

namespace baton::router {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

constexpr size_t kMaxRunning = 64;
constexpr size_t kMaxWaitingBytes = size_t{4} << 20;

std::string ModelName(const Dispatcher& dispatcher) {
  const std::vector<ModelInfo> models = dispatcher.Models();
  return models.empty() ? "" : models.front().name;
}

// What the sinks of one request hold. `on_response` gets each response, `on_end` the status at the
// end, both in order, one call at a time.
struct Answer {
  ModelInferRequest request;
  KserveCall call;
  std::string model;
  std::string text;  // so far, when it is answered in one piece
  std::function<void(ModelInferResponse)> on_response;
  std::function<void(const absl::Status&)> on_end;
};

// What of a call its request keeps: the context may be gone when it is submitted.
struct Caller {
  std::shared_ptr<Visit> visit;
  Duration timeout{};
  std::shared_ptr<const CallInfo> info;
};

absl::StatusOr<Dispatcher::Handle> Submit(const GrpcBackend& backend, Caller caller,
                                          const std::shared_ptr<Answer>& answer, bool may_stream) {
  absl::StatusOr<KserveCall> call = ToKserveCall(answer->request, backend.limits);
  if (!call.ok()) return call.status();
  GenerateInput input = std::move(call->input);
  input.visit = std::move(caller.visit);
  input.timeout = caller.timeout;
  input.call = std::move(caller.info);
  answer->call = *std::move(call);
  answer->call.stream = answer->call.stream && may_stream;
  input.in_pieces = answer->call.stream;
  input.tells_tokens = false;
  answer->model = ModelName(*backend.dispatcher);
  if (answer->call.repeat_prompt) answer->text = answer->call.prompt;
  ResponseSink sink;
  sink.on_delta = [answer](const Delta& delta) {
    if (!answer->call.stream) {
      answer->text += delta.text;
    } else if (!delta.text.empty()) {
      answer->on_response(
          ToResponse(answer->request, answer->call, answer->model, delta.text, nullptr));
    }
  };
  sink.on_finish = [answer](const Finish& finish) {
    answer->on_response(
        ToResponse(answer->request, answer->call, answer->model, answer->text, &finish));
    answer->on_end(absl::OkStatus());
  };
  sink.on_error = [answer](const absl::Status& status) { answer->on_end(status); };
  return backend.dispatcher->Submit(std::move(input), std::move(sink));
}

bool TakesLong(const ModelInferRequest& request, size_t bytes) {
  if (bytes > kLongRequestBytes) return true;
  return std::ranges::any_of(request.raw_input_contents(), MayCompile) ||
         std::ranges::any_of(request.inputs(), [](const auto& input) {
           return std::ranges::any_of(input.contents().bytes_contents(), MayCompile);
         });
}

// Calls `submitted` with what Submit said, once: perhaps later, on another thread.
void SubmitSoon(const GrpcBackend& backend, const grpc::CallbackServerContext& context,
                const std::shared_ptr<const CallInfo>& info, const std::shared_ptr<Answer>& answer,
                bool may_stream,
                std::function<void(absl::StatusOr<Dispatcher::Handle>)> submitted) {
  const auto tell = [calls = backend.calls, info,
                     submitted = std::move(submitted)](absl::StatusOr<Dispatcher::Handle> handle) {
    if (!handle.ok()) calls->Refused(info, handle.status());
    submitted(std::move(handle));
  };
  absl::StatusOr<std::shared_ptr<Visit>> visit = ComeIn(backend.gate, *backend.dispatcher, context);
  if (!visit.ok()) return tell(visit.status());
  Caller caller{*std::move(visit), TimeLeft(context), info};
  const size_t bytes = answer->request.ByteSizeLong();
  if (!TakesLong(answer->request, bytes)) {
    return tell(Submit(backend, std::move(caller), answer, may_stream));
  }
  const absl::Status taken =
      backend.long_work->Do(bytes, [=] { tell(Submit(backend, caller, answer, may_stream)); });
  if (!taken.ok()) tell(taken);
}

// A unary call's ending, once, whoever brings it.
class InferState {
 public:
  InferState(Dispatcher* dispatcher, grpc::ServerUnaryReactor* reactor)
      : dispatcher_(dispatcher), reactor_(reactor) {}

  void End(const absl::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(ended_, true)) return;
    }
    reactor_->Finish(ToGrpcStatus(status));
  }
  // False, and the response may not be touched, when the call has ended.
  void Fill(ModelInferResponse from, ModelInferResponse* to) {
    const std::lock_guard lock(mutex_);
    if (!ended_) *to = std::move(from);
  }
  void Submitted(Dispatcher::Handle handle) {
    {
      const std::lock_guard lock(mutex_);
      handle_ = handle;
      if (!ended_) return;
    }
    dispatcher_->Cancel(handle);  // or it has ended already
  }
  void Cancel() {
    End(absl::CancelledError("the client is gone"));
    std::optional<Dispatcher::Handle> handle;
    {
      const std::lock_guard lock(mutex_);
      handle = handle_;
    }
    if (handle) dispatcher_->Cancel(*handle);
  }

 private:
  Dispatcher* const dispatcher_;
  grpc::ServerUnaryReactor* const reactor_;
  std::mutex mutex_;  // guards the next two
  bool ended_ = false;
  std::optional<Dispatcher::Handle> handle_;
};

class InferReactor final : public grpc::ServerUnaryReactor {
 public:
  explicit InferReactor(Dispatcher* dispatcher)
      : state_(std::make_shared<InferState>(dispatcher, this)) {}
  const std::shared_ptr<InferState>& state() const { return state_; }
  void OnCancel() override { state_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<InferState> state_;
};

class StreamReactor;

// As GenerateState in grpc_generate.cc: whoever writes has the reactor, and after Finish nobody. A
// read is outstanding while `reading_`; gRPC keeps the reactor until that is over, too.
class StreamState : public std::enable_shared_from_this<StreamState> {
 public:
  StreamState(const GrpcBackend& backend, grpc::CallbackServerContext* context,
              StreamReactor* reactor)
      : backend_(backend), context_(context), reactor_(reactor) {}

  void OnRequest(const ModelInferRequest& request);
  void OnReadsDone();
  void OnWriteDone(bool ok);
  void OnCancel();

 private:
  void OnSubmitted(uint64_t number, const std::string& id,
                   const absl::StatusOr<Dispatcher::Handle>& handle);
  void Put(ModelStreamInferResponse response);
  void EndRequest(uint64_t number, const std::string& id, const absl::Status& status);
  void AdvanceLocked();

  const GrpcBackend backend_;
  grpc::CallbackServerContext* const context_;
  StreamReactor* const reactor_;

  std::mutex mutex_;  // guards all below
  std::deque<ModelStreamInferResponse> waiting_;
  size_t waiting_bytes_ = 0;
  ModelStreamInferResponse current_;  // being written while busy_
  bool busy_ = false;
  bool wants_read_ = false;  // the last request was taken, and no read is outstanding
  bool reads_done_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
  uint64_t last_number_ = 0;
  std::map<uint64_t, std::optional<Dispatcher::Handle>> running_;
};

class StreamReactor final
    : public grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse> {
 public:
  StreamReactor(const GrpcBackend& backend, grpc::CallbackServerContext* context)
      : state_(std::make_shared<StreamState>(backend, context, this)) {
    Read();
  }
  void Read() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    const std::shared_ptr<StreamState> state = state_;
    ok ? state->OnRequest(request_) : state->OnReadsDone();
  }
  void OnWriteDone(bool ok) override { state_->OnWriteDone(ok); }
  void OnCancel() override { state_->OnCancel(); }
  void OnDone() override { delete this; }

 private:
  ModelInferRequest request_;  // belongs to the read in flight
  const std::shared_ptr<StreamState> state_;
};

void StreamState::OnRequest(const ModelInferRequest& request) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++last_number_;
    if (cancelled_ || finished_) return;
    running_.emplace(number, std::nullopt);
  }
  auto answer = std::make_shared<Answer>();
  answer->request = request;
  const std::string id = request.id();
  answer->on_response = [self = shared_from_this()](ModelInferResponse response) {
    ModelStreamInferResponse message;
    *message.mutable_infer_response() = std::move(response);
    self->Put(std::move(message));
  };
  answer->on_end = [self = shared_from_this(), number, id](const absl::Status& status) {
    self->EndRequest(number, id, status);
  };
  const std::shared_ptr<const CallInfo> call =
      backend_.calls->Begin(*context_, "inference.GRPCInferenceService/ModelStreamInfer");
  SubmitSoon(backend_, *context_, call, answer, /*may_stream=*/true,
             [self = shared_from_this(), number, id](const auto& handle) {
               self->OnSubmitted(number, id, handle);
             });
}

void StreamState::OnSubmitted(uint64_t number, const std::string& id,
                              const absl::StatusOr<Dispatcher::Handle>& handle) {
  if (!handle.ok()) EndRequest(number, id, handle.status());
  std::unique_lock lock(mutex_);
  if (handle.ok()) {
    const auto running = running_.find(number);
    if (running != running_.end()) running->second = *handle;
    if (cancelled_) {
      lock.unlock();
      backend_.dispatcher->Cancel(*handle);
      lock.lock();
    }
  }
  wants_read_ = true;
  AdvanceLocked();
}

void StreamState::EndRequest(uint64_t number, const std::string& id, const absl::Status& status) {
  if (!status.ok()) {
    ModelStreamInferResponse message;
    message.set_error_message(std::string(status.message()));
    message.mutable_infer_response()->set_id(id);
    Put(std::move(message));
  }
  std::unique_lock lock(mutex_);
  running_.erase(number);
  AdvanceLocked();
}

void StreamState::Put(ModelStreamInferResponse response) {
  std::unique_lock lock(mutex_);
  if (cancelled_ || finished_) return;
  if (waiting_bytes_ > kMaxWaitingBytes) {
    context_->TryCancel();  // OnCancel does the rest, on gRPC's thread
    return;
  }
  waiting_bytes_ += response.ByteSizeLong();
  waiting_.push_back(std::move(response));
  AdvanceLocked();
}

void StreamState::OnReadsDone() {
  std::unique_lock lock(mutex_);
  reads_done_ = true;
  AdvanceLocked();
}

void StreamState::OnWriteDone(bool ok) {
  std::unique_lock lock(mutex_);
  busy_ = false;
  if (!ok) waiting_.clear();
  AdvanceLocked();
}

void StreamState::OnCancel() {
  std::map<uint64_t, std::optional<Dispatcher::Handle>> running;
  {
    std::unique_lock lock(mutex_);
    cancelled_ = true;
    waiting_.clear();
    running.swap(running_);
    AdvanceLocked();
  }
  for (const auto& [number, handle] : running) {
    if (handle) backend_.dispatcher->Cancel(*handle);
  }
}

// The next write, read or the end; none while another thread has them.
void StreamState::AdvanceLocked() {
  if (finished_) return;
  const bool over = cancelled_ || (reads_done_ && running_.empty());
  const bool write = !busy_ && !waiting_.empty();
  const bool finish = !busy_ && waiting_.empty() && over;
  const bool read = !finish && wants_read_ && !cancelled_ && running_.size() < kMaxRunning;
  if (write) {
    busy_ = true;
    current_ = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ = waiting_.empty() ? 0 : waiting_bytes_ - current_.ByteSizeLong();
  }
  if (read) wants_read_ = false;
  finished_ = finish;
  const grpc::Status status =
      cancelled_ ? grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone, or too slow")
                 : grpc::Status::OK;
  // Starting is all that is done under the lock: gRPC calls back on its own threads.
  if (write) reactor_->StartWrite(&current_);
  if (read) reactor_->Read();
  if (finish) reactor_->Finish(status);
}

}  // namespace

grpc::ServerUnaryReactor* StartInfer(const GrpcBackend& backend,
                                     grpc::CallbackServerContext* context,
                                     const ModelInferRequest* request,
                                     ModelInferResponse* response) {
  auto* const reactor = new InferReactor(backend.dispatcher);
  // The reactor may be gone as soon as an ending was put.
  const std::shared_ptr<InferState> state = reactor->state();
  auto answer = std::make_shared<Answer>();
  answer->request = *request;
  answer->on_response = [state, response](ModelInferResponse whole) {
    state->Fill(std::move(whole), response);
  };
  answer->on_end = [state](const absl::Status& status) { state->End(status); };
  const std::shared_ptr<const CallInfo> call =
      backend.calls->Begin(*context, "inference.GRPCInferenceService/ModelInfer");
  GrpcCalls::Tell(*call, context);
  SubmitSoon(backend, *context, call, answer, /*may_stream=*/false, [state](const auto& handle) {
    handle.ok() ? state->Submitted(*handle) : state->End(handle.status());
  });
  return reactor;
}

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>* StartStreamInfer(
    const GrpcBackend& backend, grpc::CallbackServerContext* context) {
  return new StreamReactor(backend, context);
}

}  // namespace baton::router
