#include "router/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/logging.h"
#include "common/prefetch.h"
#include "common/status_macros.h"
#include "router/admission.h"
#include "router/fleet_control.h"
#include "router/key_gate.h"
#include "router/live_request.h"
#include "router/metrics.h"
#include "router/registry.h"
#include "router/request_queue.h"
#include "router/retry_budget.h"
#include "router/served_model.h"
#include "router/wake_batch.h"

namespace baton::router {
namespace {

using worker_link::Event;

// How late a deadline may be noticed, and a waiting request a free worker.
constexpr Duration kTick = std::chrono::milliseconds(50);

std::shared_ptr<const CallInfo> CallWithoutFrontEnd() {
  auto call = std::make_shared<CallInfo>();
  call->received = SystemClock().Now();
  return call;
}

class DispatcherImpl final : public Dispatcher {
 public:
  DispatcherImpl(const DispatcherOptions& options, std::unique_ptr<const ServedModel> model)
      : options_(options),
        model_(std::move(model)),
        incarnation_(RandomU64()),
        metrics_(model_->name()),
        retries_(options.retry_share),
        queue_(options.max_waiting) {}
  ~DispatcherImpl() override;
  absl::Status Start();

  absl::StatusOr<Handle> Submit(GenerateInput input, ResponseSink sink) override;
  absl::Status CheckRoom() const override;
  void Cancel(Handle handle) override;
  absl::StatusOr<std::vector<TokenId>> Tokenize(const GenerateInput& input) const override;
  absl::StatusOr<std::string> Detokenize(const std::string& model,
                                         const std::vector<TokenId>& tokens) const override;
  std::vector<ModelInfo> Models() const override;
  std::vector<WorkerView> Fleet() const override { return registry_->Fleet(); }
  std::vector<DiscoveryView> Discovery() const override { return registry_->Discovery(); }
  std::vector<RequestRecord> LiveRequests() const override;
  bool Ready() const override;
  std::string MetricsText() const override;
  void AnnounceDrain() override;
  bool Drain(Duration timeout) override;
  int32_t running() const override;
  absl::Status SetDuty(const DutyChange& change) override { return registry_->SetDuty(change); }
  std::string ControlJson() const override { return control_ ? control_->Json() : ""; }

 private:
  using LivePtr = std::shared_ptr<LiveRequest>;

  int32_t ContextTokens() const {
    return std::min(model_->context_tokens(), registry_->MinContextTokens());
  }
  absl::StatusOr<LivePtr> Accept(FlowRequest request, std::vector<TokenId> prompt,
                                 std::string cache_salt, ResponseSink sink, TimePoint deadline);
  absl::Status CheckRoomLocked() const;
  absl::Status StartOrWait(const LivePtr& live, QueuedRequest place);
  LivePtr Find(Handle handle) const;
  // Gives those that wait for their turn to the fleet, as long as it has room.
  void Pump();
  void OnEvents(WorkerId from, std::vector<Event> events);
  bool MayPlaceAgain(TimePoint now);
  bool MustWait(QueuedRequest place);
  void Forget(Handle handle);
  // In order of arrival.
  std::vector<LivePtr> Live(std::predicate<const LiveRequest&> auto wanted) const {
    std::vector<LivePtr> found;
    const std::lock_guard lock(mutex_);
    for (const auto& [handle, live] : live_) {
      if (wanted(*live)) found.push_back(live);
    }
    std::ranges::sort(found, {}, &LiveRequest::handle);
    return found;
  }
  std::vector<LivePtr> AllLive() const {
    return Live([](const LiveRequest&) { return true; });
  }
  void TickAll();
  void RunTimer();

  const DispatcherOptions options_;
  const std::unique_ptr<const ServedModel> model_;
  const uint64_t incarnation_;
  RouterMetrics metrics_;
  LiveContext context_;

  mutable std::mutex mutex_;  // never held while a LiveRequest or the registry is called
  std::condition_variable changed_;
  absl::flat_hash_map<Handle, LivePtr> live_;
  Handle last_handle_ = 0;
  bool drain_announced_ = false;
  bool draining_ = false;
  bool stopping_ = false;
  RetryBudget retries_;

  RequestQueue queue_;
  std::atomic<int64_t> pumps_asked_{0};

  std::unique_ptr<Registry> registry_;
  std::unique_ptr<FleetControl> control_;  // null: none
  std::thread timer_;
};

absl::Status DispatcherImpl::Start() {
  RegistryOptions options;
  options.router_name = options_.router_name;
  options.workers = options_.workers;
  options.workers_file = options_.workers_file;
  options.etcd = options_.etcd;
  options.security = options_.link_security;
  options.only_safe = options_.only_safe_links;
  options.vocab_size = model_->tokenizer().vocab_size();
  options.stall_timeout = options_.stall_timeout;
  options.prefix_index_entries = options_.prefix_index_entries;
  RegistryEvents events;
  events.on_usable = [this] { TickAll(); };
  events.on_lost = [this](WorkerId worker, const absl::Status& why) {
    for (const LivePtr& live : AllLive()) live->OnWorkerLost(worker, why);
    Pump();
  };
  events.on_events = [this](WorkerId from, std::vector<Event> all) {
    OnEvents(from, std::move(all));
  };
  events.on_stalled = [this](WorkerId worker, const absl::Status& why) {
    for (const LivePtr& live : AllLive()) live->OnWorkerStalled(worker, why);
    Pump();
  };
  events.on_leaving = [this](WorkerId worker) {
    for (const LivePtr& live : AllLive()) live->OnWorkerLeaving(worker);
    Pump();
  };
  // Workers may connect before Create returns; nothing is live yet that would need registry_.
  BATON_ASSIGN_OR_RETURN(registry_, Registry::Create(options, std::move(events)));
  context_.model_name = model_->name();
  context_.telemetry = options_.telemetry;
  context_.registry = registry_.get();
  context_.metrics = &metrics_;
  context_.clock = &SystemClock();
  context_.worker_wait = options_.worker_wait;
  context_.local_prefill_tokens = options_.local_prefill_tokens;
  context_.local_uncached_tokens = options_.local_uncached_tokens;
  context_.may_place_again = [this](TimePoint now) { return MayPlaceAgain(now); };
  context_.must_wait = [this](QueuedRequest place) { return MustWait(std::move(place)); };
  context_.on_ended = [this](Handle handle) {
    if (!queue_.Remove(handle)) queue_.CountEnding(SystemClock().Now());
    Forget(handle);
  };
  if (options_.control != nullptr && options_.control->mode != ControlMode::kOff) {
    control_ = std::make_unique<FleetControl>(
        *options_.control,
        FleetHandle{.fleet = [this] { return registry_->Fleet(); },
                    .set_duty = [this](const DutyChange& to) { return registry_->SetDuty(to); }});
    context_.watch = &control_->watch();
    control_->Start();
  }
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
  if (control_ != nullptr) control_->Stop();
  for (const LivePtr& live : AllLive()) {
    live->Fail(absl::UnavailableError("the router is shutting down"));
  }
  registry_.reset();  // no calls from the links after this
}

absl::StatusOr<Dispatcher::Handle> DispatcherImpl::Submit(GenerateInput input, ResponseSink sink) {
  if (input.call == nullptr) input.call = CallWithoutFrontEnd();
  const TimePoint arrival = input.call->received;
  BATON_RETURN_IF_ERROR(CheckRoom());
  BATON_RETURN_IF_ERROR(model_->CheckName(input.model));
  const int32_t context_tokens = ContextTokens();
  BATON_ASSIGN_OR_RETURN(std::vector<TokenId> prompt,
                         model_->PromptTokens(input, options_.limits, context_tokens));
  BATON_RETURN_IF_ERROR(TokenizeBadWords(input, model_->tokenizer(), options_.limits));
  BATON_RETURN_IF_ERROR(Admit(input, prompt.size(), context_tokens,
                              model_->tokenizer().vocab_size(), options_.limits));
  if (!input.has_seed) input.sampling.seed = RandomU64();
  const std::shared_ptr<Visit> visit = input.visit;
  const auto prompt_tokens = static_cast<int32_t>(prompt.size());
  QueuedRequest place{.tokens = prompt_tokens};
  if (visit != nullptr) {
    place.tenant = visit->key().tenant;
    place.priority = visit->key().priority;
    input.cache_salt = visit->CacheSalt(input.cache_salt);
  }
  place.deadline = arrival + options_.request_timeout;
  if (input.timeout > Duration::zero()) {
    place.deadline = std::min(place.deadline, arrival + input.timeout);
  }
  FlowRequest request = TakeFlowRequest(&input);
  request.prompt_tokens = prompt_tokens;
  request.first_prompt_token = prompt.front();
  if (!input.session.empty()) request.session = SessionKey(input.cache_salt, input.session);
  request.arrival = arrival;
  request.tokenized = SystemClock().Now();
  request.max_migrations = options_.max_migrations;
  BATON_ASSIGN_OR_RETURN(const LivePtr live,
                         Accept(std::move(request), std::move(prompt), std::move(input.cache_salt),
                                std::move(sink), place.deadline));
  const absl::Status started = StartOrWait(live, std::move(place));
  if (started.ok() && visit != nullptr) visit->Charge(prompt_tokens, arrival);
  if (started.ok()) return live->handle();
  Forget(live->handle());
  return started;
}

absl::StatusOr<DispatcherImpl::LivePtr> DispatcherImpl::Accept(FlowRequest request,
                                                               std::vector<TokenId> prompt,
                                                               std::string cache_salt,
                                                               ResponseSink sink,
                                                               TimePoint deadline) {
  const std::lock_guard lock(mutex_);
  BATON_RETURN_IF_ERROR(CheckRoomLocked());
  retries_.OnRequest(request.arrival);
  request.id = {incarnation_, ++last_handle_};
  const double arrival_s = Seconds(request.arrival.time_since_epoch());
  const int32_t prompt_tokens = request.prompt_tokens;
  auto live = std::make_shared<LiveRequest>(&context_, std::move(request), std::move(prompt),
                                            std::move(cache_salt), &model_->tokenizer(),
                                            std::move(sink), deadline);
  live_.emplace(live->handle(), live);
  if (context_.watch != nullptr) {
    context_.watch->OnArrival(arrival_s, live->handle(), prompt_tokens);
  }
  return live;
}

absl::Status DispatcherImpl::CheckRoom() const {
  const std::lock_guard lock(mutex_);
  return CheckRoomLocked();
}

absl::Status DispatcherImpl::CheckRoomLocked() const {
  if (draining_) return absl::UnavailableError("the router is draining: it takes no new requests");
  const TimePoint now = SystemClock().Now();
  if (live_.size() >= static_cast<size_t>(options_.max_concurrent)) {
    return queue_.TooMany(live_.size(), options_.max_concurrent, now);
  }
  return queue_.CheckRoom(now);
}

// A request never passes those that wait.
absl::Status DispatcherImpl::StartOrWait(const LivePtr& live, QueuedRequest place) {
  if (queue_.empty() && registry_->HasRoom()) return live->Start();
  place.handle = live->handle();
  BATON_RETURN_IF_ERROR(queue_.Push(std::move(place), SystemClock().Now()));
  Pump();  // what was in the way may have ended in the meantime
  return absl::OkStatus();
}

void DispatcherImpl::Pump() {
  if (queue_.empty()) return;
  // One thread at a time, and never from within itself; whoever comes meanwhile makes it look once
  // more.
  if (pumps_asked_.fetch_add(1) != 0) return;
  int64_t seen = 0;
  do {
    seen = pumps_asked_.load();
    while (!queue_.empty() && registry_->HasRoom()) {
      const std::optional<uint64_t> handle = queue_.Pop();
      if (!handle) break;
      if (const LivePtr live = Find(*handle)) live->Begin();
    }
  } while (pumps_asked_.fetch_sub(seen) != seen);
}

DispatcherImpl::LivePtr DispatcherImpl::Find(Handle handle) const {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(handle);
  return found == live_.end() ? nullptr : found->second;
}

void DispatcherImpl::Cancel(Handle handle) {
  if (const LivePtr live = Find(handle)) live->Cancel();
}

void DispatcherImpl::OnEvents(WorkerId from, std::vector<Event> events) {
  const WakeBatch batch;
  const TimePoint now = SystemClock().Now();
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
    if (i + 1 < events.size()) Prefetch(targets[i + 1].get());
    if (targets[i] != nullptr) targets[i]->OnEvent(from, std::move(events[i]), now);
  }
  Pump();
}

bool DispatcherImpl::MayPlaceAgain(TimePoint now) {
  const std::lock_guard lock(mutex_);
  return retries_.Take(now, static_cast<int64_t>(live_.size()));
}

// Who waits is taken out by whoever brought the event, or the next tick.
bool DispatcherImpl::MustWait(QueuedRequest place) {
  if (queue_.empty() && registry_->HasRoom()) return false;
  queue_.PushAgain(std::move(place));
  return true;
}

void DispatcherImpl::Forget(Handle handle) {
  LivePtr last;  // destroyed without the lock
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(handle);
    if (found == live_.end()) return;
    last = std::move(found->second);
    live_.erase(found);
    if (draining_ && live_.empty()) changed_.notify_all();
  }
  Pump();
}

void DispatcherImpl::TickAll() {
  const TimePoint now = SystemClock().Now();
  const auto due = Live([now](const LiveRequest& live) { return live.IsDue(now); });
  for (const LivePtr& live : due) live->OnTick(now);
  for (const uint64_t handle : queue_.TakeExpired(now)) {
    if (const LivePtr live = Find(handle)) {
      live->Fail(absl::DeadlineExceededError(
          "the request's deadline came while it waited in the router for its turn"));
    }
  }
  Pump();
}

void DispatcherImpl::RunTimer() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_for(lock, kTick, [this] { return stopping_; });
    lock.unlock();
    registry_->CheckSilence(SystemClock().Now());
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

std::vector<RequestRecord> DispatcherImpl::LiveRequests() const {
  const TimePoint now = SystemClock().Now();
  std::vector<RequestRecord> records;
  for (const LivePtr& live : AllLive()) records.push_back(live->Record(now));
  return records;
}

bool DispatcherImpl::Ready() const {
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || drain_announced_) return false;
  }
  return registry_->Ready();
}

std::string DispatcherImpl::MetricsText() const {
  const std::vector<LivePtr> all = AllLive();
  const auto waiting = static_cast<int32_t>(
      std::ranges::count_if(all, [](const LivePtr& live) { return live->waiting(); }));
  return metrics_.Text(static_cast<int32_t>(all.size()) - waiting, waiting, registry_->Fleet()) +
         queue_.MetricsText() + registry_->MetricsText();
}

void DispatcherImpl::AnnounceDrain() {
  const std::lock_guard lock(mutex_);
  drain_announced_ = true;
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
