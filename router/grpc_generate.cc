#include "router/grpc_generate.h"

#include <grpcpp/server_context.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "common/ids.h"
#include "router/grpc_caller.h"
#include "router/grpc_convert.h"
#include "router/grpc_error.h"

namespace baton::router {
namespace {

constexpr size_t kMaxWaitingBytes = size_t{4} << 20;

class GenerateReactor;

// Between the dispatcher's threads and gRPC's. The sinks hold it, so it outlives the reactor when
// the dispatcher is late.
//
// Whoever holds `busy_` (from a StartWrite to its OnWriteDone, or for ever after Finish) is the
// only one to use the reactor, which gRPC keeps until Finish has been called and all is done.
class GenerateState {
 public:
  GenerateState(Dispatcher* dispatcher, grpc::CallbackServerContext* context,
                GenerateReactor* reactor, bool with_logprobs)
      : dispatcher_(dispatcher),
        context_(context),
        reactor_(reactor),
        with_logprobs_(with_logprobs) {}

  void Submitted(Dispatcher::Handle handle);
  void PutStarted(uint64_t seed);
  void PutDelta(const Delta& delta);
  void PutFinish(const Finish& finish);
  // After what is queued already.
  void End(const grpc::Status& status);
  // The client is gone: nothing more is written.
  void OnCancel();
  void OnWriteDone(bool ok);
  bool cancelled() {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

 private:
  void Put(v1::GenerateResponse message);
  void Pump(std::unique_lock<std::mutex> lock);

  Dispatcher* const dispatcher_;
  grpc::CallbackServerContext* const context_;
  GenerateReactor* const reactor_;
  const bool with_logprobs_;

  std::mutex mutex_;  // guards all below
  std::deque<v1::GenerateResponse> waiting_;
  size_t waiting_bytes_ = 0;
  v1::GenerateResponse current_;  // being written while busy_
  bool busy_ = false;
  std::optional<grpc::Status> ending_;
  std::optional<Dispatcher::Handle> handle_;
  bool cancelled_ = false;
};

class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  GenerateReactor(Dispatcher* dispatcher, grpc::CallbackServerContext* context, bool with_logprobs)
      : state_(std::make_shared<GenerateState>(dispatcher, context, this, with_logprobs)) {}

  const std::shared_ptr<GenerateState>& state() const { return state_; }

  void OnWriteDone(bool ok) override { state_->OnWriteDone(ok); }
  void OnCancel() override { state_->OnCancel(); }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<GenerateState> state_;
};

void GenerateState::Submitted(Dispatcher::Handle handle) {
  bool gone = false;
  {
    const std::lock_guard lock(mutex_);
    gone = cancelled_;
    handle_ = handle;
  }
  if (gone) dispatcher_->Cancel(handle);
}

void GenerateState::PutStarted(uint64_t seed) {
  v1::GenerateResponse message;
  message.mutable_started()->set_seed(seed);
  Put(std::move(message));
}

void GenerateState::PutDelta(const Delta& delta) {
  v1::GenerateResponse message;
  *message.mutable_delta() = FromDelta(delta, with_logprobs_);
  Put(std::move(message));
}

void GenerateState::PutFinish(const Finish& finish) {
  v1::GenerateResponse message;
  *message.mutable_finish() = FromFinish(finish);
  Put(std::move(message));
  End(grpc::Status::OK);
}

void GenerateState::Put(v1::GenerateResponse message) {
  std::unique_lock lock(mutex_);
  if (ending_.has_value()) return;
  if (waiting_bytes_ > kMaxWaitingBytes) {
    // Breaks the write that is stuck; OnCancel does the rest, on gRPC's thread. The context lives
    // as long as there is no ending.
    context_->TryCancel();
    return;
  }
  waiting_bytes_ += message.ByteSizeLong();
  waiting_.push_back(std::move(message));
  Pump(std::move(lock));
}

void GenerateState::End(const grpc::Status& status) {
  std::unique_lock lock(mutex_);
  if (ending_.has_value()) return;
  ending_ = status;
  Pump(std::move(lock));
}

void GenerateState::OnCancel() {
  std::unique_lock lock(mutex_);
  cancelled_ = true;
  const std::optional<Dispatcher::Handle> handle = handle_;
  waiting_.clear();
  waiting_bytes_ = 0;
  if (!ending_.has_value()) {
    ending_ = grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone, or reads too slowly");
  }
  Pump(std::move(lock));
  if (handle.has_value()) dispatcher_->Cancel(*handle);
}

void GenerateState::OnWriteDone(bool ok) {
  std::unique_lock lock(mutex_);
  busy_ = false;
  if (!ok) {  // the stream is broken; OnCancel comes, or came
    waiting_.clear();
    waiting_bytes_ = 0;
  }
  Pump(std::move(lock));
}

void GenerateState::Pump(std::unique_lock<std::mutex> lock) {
  if (busy_) return;
  if (!waiting_.empty()) {
    busy_ = true;
    current_ = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= current_.ByteSizeLong();
    lock.unlock();
    reactor_->StartWrite(&current_);
  } else if (ending_.has_value()) {
    busy_ = true;
    const grpc::Status status = *ending_;
    lock.unlock();
    reactor_->Finish(status);
  }
}

// Compiles, tokenizes and places. The call may have been cancelled, and its context be gone.
void Submit(const GrpcBackend& backend, GenerateInput input, bool resumable,
            const std::shared_ptr<GenerateState>& state) {
  const std::shared_ptr<const CallInfo> call = input.call;
  const auto refuse = [&](const absl::Status& why) {
    backend.calls->Refused(call, why);
    state->End(ToGrpcStatus(why));
  };
  if (const absl::Status sound = CheckConstraint(input); !sound.ok()) return refuse(sound);
  if (resumable) {
    if (!input.has_seed && input.resume_tokens.empty()) input.sampling.seed = RandomU64();
    input.has_seed = input.has_seed || input.resume_tokens.empty();
    state->PutStarted(input.sampling.seed);
  }
  ResponseSink sink;
  sink.on_delta = [state](const Delta& delta) { state->PutDelta(delta); };
  sink.on_finish = [state](const Finish& finish) { state->PutFinish(finish); };
  sink.on_error = [state](const absl::Status& status) { state->End(ToGrpcStatus(status)); };
  const absl::StatusOr<Dispatcher::Handle> handle =
      backend.dispatcher->Submit(std::move(input), std::move(sink));
  if (!handle.ok()) return refuse(handle.status());
  state->Submitted(*handle);
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(const GrpcBackend& backend,
                                                              grpc::CallbackServerContext* context,
                                                              const v1::GenerateRequest& request) {
  const bool with_logprobs = request.sampling().has_logprobs();
  auto* reactor = new GenerateReactor(backend.dispatcher, context, with_logprobs);
  // The reactor may be gone as soon as an ending was put: from here on only the state is used.
  const std::shared_ptr<GenerateState> state = reactor->state();
  const std::shared_ptr<const CallInfo> call =
      backend.calls->Begin(*context, "baton.v1.Baton/Generate");
  GrpcCalls::Tell(*call, context);
  absl::StatusOr<std::shared_ptr<Visit>> visit =
      ComeIn(backend.gate, *backend.dispatcher, *context);
  absl::StatusOr<GenerateInput> input = visit.ok() ? ToInput(request) : visit.status();
  absl::Status status = input.status();
  if (input.ok()) {
    input->visit = *std::move(visit);
    input->timeout = TimeLeft(*context);
    input->call = call;
    const bool resumable = request.resumable();
    const size_t bytes = request.ByteSizeLong();
    if (input->sampling.constraint.empty() && bytes <= kLongRequestBytes) {
      Submit(backend, *std::move(input), resumable, state);
      return reactor;
    }
    status = backend.long_work->Do(
        bytes, [backend, input = *std::move(input), resumable, state]() mutable {
          if (!state->cancelled()) return Submit(backend, std::move(input), resumable, state);
          backend.calls->Refused(input.call, absl::CancelledError("the client is gone"));
        });
  }
  if (!status.ok()) {
    backend.calls->Refused(call, status);
    state->End(ToGrpcStatus(status));
  }
  return reactor;
}

}  // namespace baton::router
