#include "router/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/admission.h"
#include "router/live_request.h"
#include "router/metrics.h"
#include "router/registry.h"
#include "router/served_model.h"

namespace baton::router {
namespace {

using worker_link::Event;

// How late a deadline may be noticed, and a waiting request a free worker.
constexpr Duration kTick = std::chrono::milliseconds(50);

class DispatcherImpl final : public Dispatcher {
 public:
  DispatcherImpl(const DispatcherOptions& options, std::unique_ptr<const ServedModel> model)
      : options_(options),
        model_(std::move(model)),
        incarnation_(RandomU64()),
        metrics_(model_->name()) {}
  ~DispatcherImpl() override;
  absl::Status Start();

  absl::StatusOr<Handle> Submit(GenerateInput input, ResponseSink sink) override;
  void Cancel(Handle handle) override;
  absl::StatusOr<std::vector<TokenId>> Tokenize(const GenerateInput& input) const override;
  absl::StatusOr<std::string> Detokenize(const std::string& model,
                                         const std::vector<TokenId>& tokens) const override;
  std::vector<ModelInfo> Models() const override;
  std::vector<WorkerView> Fleet() const override { return registry_->Fleet(); }
  bool Ready() const override;
  std::string MetricsText() const override;
  bool Drain(Duration timeout) override;
  int32_t running() const override;

 private:
  using LivePtr = std::shared_ptr<LiveRequest>;

  int32_t ContextTokens() const {
    return std::min(model_->context_tokens(), registry_->MinContextTokens());
  }
  absl::StatusOr<LivePtr> Accept(FlowRequest request, std::vector<TokenId> prompt,
                                 std::string cache_salt, ResponseSink sink);
  void OnEvents(WorkerId from, std::vector<Event> events);
  void Forget(Handle handle);
  std::vector<LivePtr> AllLive() const;
  void TickAll();
  void RunTimer();

  const DispatcherOptions options_;
  const std::unique_ptr<const ServedModel> model_;
  const uint64_t incarnation_;
  RouterMetrics metrics_;
  LiveContext context_;

  mutable std::mutex mutex_;  // never held while a LiveRequest or the registry is called
  std::condition_variable changed_;
  std::map<Handle, LivePtr> live_;  // in order of arrival
  Handle last_handle_ = 0;
  bool draining_ = false;
  bool stopping_ = false;

  std::unique_ptr<Registry> registry_;
  std::thread timer_;
};

absl::Status DispatcherImpl::Start() {
  RegistryOptions options;
  options.router_name = options_.router_name;
  options.workers = options_.workers;
  options.workers_file = options_.workers_file;
  options.vocab_size = model_->tokenizer().vocab_size();
  RegistryEvents events;
  events.on_usable = [this] { TickAll(); };
  events.on_lost = [this](WorkerId worker, const absl::Status& why) {
    for (const LivePtr& live : AllLive()) live->OnWorkerLost(worker, why);
  };
  events.on_events = [this](WorkerId from, std::vector<Event> all) {
    OnEvents(from, std::move(all));
  };
  // Workers may connect before Create returns; nothing is live yet that would need registry_.
  BATON_ASSIGN_OR_RETURN(registry_, Registry::Create(options, std::move(events)));
  context_.registry = registry_.get();
  context_.metrics = &metrics_;
  context_.clock = &SystemClock();
  context_.worker_wait = options_.worker_wait;
  context_.local_prefill_tokens = options_.local_prefill_tokens;
  context_.on_ended = [this](Handle handle) { Forget(handle); };
  timer_ = std::thread(&DispatcherImpl::RunTimer, this);
  return absl::OkStatus();
}

DispatcherImpl::~DispatcherImpl() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    stopping_ = true;
  }
  changed_.notify_all();
  if (timer_.joinable()) timer_.join();
  for (const LivePtr& live : AllLive()) {
    live->Fail(absl::UnavailableError("the router is shutting down"));
  }
  registry_.reset();  // no calls from the links after this
}

absl::StatusOr<Dispatcher::Handle> DispatcherImpl::Submit(GenerateInput input, ResponseSink sink) {
  const TimePoint arrival = SystemClock().Now();
  BATON_RETURN_IF_ERROR(model_->CheckName(input.model));
  const int32_t context_tokens = ContextTokens();
  BATON_ASSIGN_OR_RETURN(std::vector<TokenId> prompt,
                         model_->PromptTokens(input, options_.limits, context_tokens));
  BATON_RETURN_IF_ERROR(Admit(input, prompt.size(), context_tokens,
                              model_->tokenizer().vocab_size(), options_.limits));
  if (!input.has_seed) input.sampling.seed = RandomU64();
  FlowRequest request;
  request.prompt_tokens = static_cast<int32_t>(prompt.size());
  request.sampling = std::move(input.sampling);
  request.stop = std::move(input.stop);
  request.arrival = arrival;
  BATON_ASSIGN_OR_RETURN(const LivePtr live, Accept(std::move(request), std::move(prompt),
                                                    std::move(input.cache_salt), std::move(sink)));
  const absl::Status started = live->Start();
  if (started.ok()) return live->handle();
  Forget(live->handle());
  return started;
}

absl::StatusOr<DispatcherImpl::LivePtr> DispatcherImpl::Accept(FlowRequest request,
                                                               std::vector<TokenId> prompt,
                                                               std::string cache_salt,
                                                               ResponseSink sink) {
  const TimePoint deadline = request.arrival + options_.request_timeout;
  const std::lock_guard lock(mutex_);
  if (draining_) return absl::UnavailableError("the router is draining: it takes no new requests");
  if (live_.size() >= static_cast<size_t>(options_.max_concurrent)) {
    return absl::ResourceExhaustedError(fmt::format("the router has {} requests, its limit is {}",
                                                    live_.size(), options_.max_concurrent));
  }
  request.id = {incarnation_, ++last_handle_};
  auto live = std::make_shared<LiveRequest>(&context_, std::move(request), std::move(prompt),
                                            std::move(cache_salt), &model_->tokenizer(),
                                            std::move(sink), deadline);
  live_.emplace(live->handle(), live);
  return live;
}

void DispatcherImpl::Cancel(Handle handle) {
  LivePtr live;
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(handle);
    if (found == live_.end()) return;
    live = found->second;
  }
  live->Cancel();
}

void DispatcherImpl::OnEvents(WorkerId from, std::vector<Event> events) {
  std::vector<LivePtr> targets(events.size());
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < events.size(); ++i) {
      const RequestId id =
          std::visit([](const auto& event) { return event.attempt.request; }, events[i]);
      const auto found = live_.find(id.low);
      if (id.high == incarnation_ && found != live_.end()) targets[i] = found->second;
    }
  }
  for (size_t i = 0; i < events.size(); ++i) {
    if (targets[i] != nullptr) targets[i]->OnEvent(from, std::move(events[i]));
  }
}

void DispatcherImpl::Forget(Handle handle) {
  LivePtr last;  // destroyed without the lock
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(handle);
    if (found == live_.end()) return;
    last = std::move(found->second);
    live_.erase(found);
  }
  changed_.notify_all();
}

std::vector<DispatcherImpl::LivePtr> DispatcherImpl::AllLive() const {
  const std::lock_guard lock(mutex_);
  std::vector<LivePtr> all;
  all.reserve(live_.size());
  for (const auto& [handle, live] : live_) all.push_back(live);
  return all;
}

void DispatcherImpl::TickAll() {
  const TimePoint now = SystemClock().Now();
  for (const LivePtr& live : AllLive()) live->OnTick(now);
}

void DispatcherImpl::RunTimer() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_for(lock, kTick, [this] { return stopping_; });
    lock.unlock();
    TickAll();
    lock.lock();
  }
}

absl::StatusOr<std::vector<TokenId>> DispatcherImpl::Tokenize(const GenerateInput& input) const {
  BATON_RETURN_IF_ERROR(model_->CheckName(input.model));
  return model_->PromptTokens(input, options_.limits, INT32_MAX);
}

absl::StatusOr<std::string> DispatcherImpl::Detokenize(const std::string& model,
                                                       const std::vector<TokenId>& tokens) const {
  GenerateInput input;
  input.model = model;
  input.prompt = tokens;
  BATON_RETURN_IF_ERROR(Tokenize(input).status());  // known model, ids in the vocabulary
  return model_->tokenizer().Decode(tokens);
}

std::vector<ModelInfo> DispatcherImpl::Models() const {
  return {
      {model_->name(), ContextTokens(), model_->tokenizer().vocab_size(), model_->tool_format()}};
}

bool DispatcherImpl::Ready() const {
  {
    const std::lock_guard lock(mutex_);
    if (draining_) return false;
  }
  return registry_->Ready();
}

std::string DispatcherImpl::MetricsText() const {
  const std::vector<LivePtr> all = AllLive();
  const auto waiting = static_cast<int32_t>(
      std::count_if(all.begin(), all.end(), [](const LivePtr& live) { return live->waiting(); }));
  return metrics_.Text(static_cast<int32_t>(all.size()) - waiting, waiting, registry_->Fleet());
}

bool DispatcherImpl::Drain(Duration timeout) {
  std::unique_lock lock(mutex_);
  if (!std::exchange(draining_, true)) {
    LogInfo(fmt::format("draining: {} requests to go", live_.size()));
  }
  return changed_.wait_for(lock, timeout, [this] { return live_.empty(); });
}

int32_t DispatcherImpl::running() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int32_t>(live_.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dispatcher>> Dispatcher::Create(const DispatcherOptions& options) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<const ServedModel> model,
                         ServedModel::Load(options.model_path, options.model_name));
  auto dispatcher = std::make_unique<DispatcherImpl>(options, std::move(model));
  BATON_RETURN_IF_ERROR(dispatcher->Start());
  return std::unique_ptr<Dispatcher>(std::move(dispatcher));
}

}  // namespace baton::router
