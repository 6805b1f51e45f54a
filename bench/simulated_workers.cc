#include "bench/simulated_workers.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "common/status_macros.h"
#include "worker_link/server.h"

namespace baton::bench {
namespace {

using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::Event;
using worker_link::FinishedEvent;
using worker_link::LinkCommand;
using worker_link::LinkId;
using worker_link::LinkInput;
using worker_link::LinkLost;
using worker_link::PrefillCommand;
using worker_link::PrefilledEvent;
using worker_link::Role;
using worker_link::TokensEvent;

constexpr int32_t kBlocks = 1 << 30;  // nothing waits for KV blocks
constexpr int32_t kBlockTokens = 16;
constexpr Duration kLongestWait = std::chrono::milliseconds(50);

worker_link::WorkerStatus IdleStatus() {
  worker_link::WorkerStatus status;
  status.blocks_total = kBlocks;
  status.blocks_free = kBlocks;
  status.prefill_tokens_per_s = 1e6;
  return status;
}

class SimulatedWorker {
 public:
  virtual ~SimulatedWorker() = default;

  absl::Status Listen(Role role, int32_t number, const SimulatedWorkersOptions& options) {
    worker_link::WorkerInfo info;
    info.name = fmt::format("{}-{}", RoleName(role), number);
    info.role = role;
    info.model = options.model;
    info.fingerprint = info.kv_layout = "simulated";
    info.vocab_size = options.vocab_size;
    info.context_tokens = options.context_tokens;
    info.block_tokens = kBlockTokens;
    info.handoff_address = info.name;
    info.incarnation = RandomU64();
    info.kv_bytes_per_token = 1024;
    BATON_ASSIGN_OR_RETURN(
        server_, worker_link::LinkServer::Create("127.0.0.1:0", info, [this](LinkInput input) {
          OnInput(std::move(input));
          return true;
        }));
    serving_ = server_.get();
    serving_->SetStatus(IdleStatus());
    return absl::OkStatus();
  }
  void StopListening() { server_.reset(); }
  std::string address() const { return server_->address(); }
  virtual void Stop() { StopListening(); }

 protected:
  virtual void OnInput(LinkInput input) = 0;
  worker_link::LinkServer& server() { return *serving_; }

 private:
  std::unique_ptr<worker_link::LinkServer> server_;
  worker_link::LinkServer* serving_ = nullptr;  // valid while the server is being destroyed, too
};

class SimulatedPrefill final : public SimulatedWorker {
 public:
  explicit SimulatedPrefill(const SimulatedWorkersOptions& options)
      : first_token_(options.answer.front()) {}

 private:
  void OnInput(LinkInput input) override {
    const auto* command = std::get_if<LinkCommand>(&input);
    const auto* prefill =
        command == nullptr ? nullptr : std::get_if<PrefillCommand>(&command->command);
    if (prefill == nullptr) return;
    server().Send(command->link, {TokensEvent{prefill->attempt, {{first_token_, 0}}},
                                  PrefilledEvent{.attempt = prefill->attempt}});
  }

  const TokenId first_token_;
};

class SimulatedDecode final : public SimulatedWorker {
 public:
  SimulatedDecode(const SimulatedWorkersOptions& options, const std::atomic<Duration>* step)
      : answer_(options.answer), step_(*step), thread_([this] { Run(); }) {}
  ~SimulatedDecode() override { Stop(); }

  void Stop() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    StopListening();
  }
  int64_t sequences() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(sequences_.size());
  }

 private:
  struct Sequence {
    LinkId link = 0;
    int32_t next = 0;  // position of the next token
    int32_t max_tokens = 0;
  };

  void OnInput(LinkInput input) override {
    const std::lock_guard lock(mutex_);
    if (const auto* lost = std::get_if<LinkLost>(&input)) {
      std::erase_if(sequences_, [&](const auto& one) { return one.second.link == lost->link; });
    }
    const auto* command = std::get_if<LinkCommand>(&input);
    if (command == nullptr) return;
    if (const auto* decode = std::get_if<DecodeCommand>(&command->command)) {
      sequences_[decode->attempt] = {command->link, decode->handoff ? 1 : 0,
                                     decode->sampling.max_tokens};
      if (sequences_.size() == 1) changed_.notify_all();
    } else if (const auto* cancel = std::get_if<CancelCommand>(&command->command)) {
      sequences_.erase(cancel->attempt);
    }
  }

  // Steps are `step_` apart, as a batch's are; one that comes late does not make the next one
  // early.
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      changed_.wait(lock, [this] { return stopping_ || !sequences_.empty(); });
      const TimePoint begun = SystemClock().Now();
      while (!stopping_) {  // in pieces, since the step may become shorter meanwhile
        const TimePoint until = begun + step_.load();
        const TimePoint now = SystemClock().Now();
        if (now >= until) break;
        changed_.wait_until(lock, std::min(until, now + kLongestWait));
      }
      if (stopping_) return;
      std::map<LinkId, std::vector<Event>> messages = StepLocked(step_.load() == Duration::zero());
      lock.unlock();
      for (auto& [link, events] : messages) server().Send(link, std::move(events));
      lock.lock();
    }
  }

  std::map<LinkId, std::vector<Event>> StepLocked(bool all_tokens) {
    std::map<LinkId, std::vector<Event>> messages;
    for (auto it = sequences_.begin(); it != sequences_.end();) {
      Sequence& sequence = it->second;
      std::vector<Event>& events = messages[sequence.link];
      TokensEvent tokens{it->first, {}};
      const int32_t end =
          all_tokens ? sequence.max_tokens : std::min(sequence.next + 1, sequence.max_tokens);
      for (; sequence.next < end; ++sequence.next) {
        tokens.tokens.push_back(
            {answer_[static_cast<size_t>(sequence.next) % answer_.size()], sequence.next});
      }
      if (!tokens.tokens.empty()) events.emplace_back(std::move(tokens));
      if (sequence.next < sequence.max_tokens) {
        ++it;
        continue;
      }
      FinishedEvent finished{.attempt = it->first, .reason = FinishReason::kLength};
      finished.output_tokens = sequence.max_tokens;
      events.emplace_back(std::move(finished));
      it = sequences_.erase(it);
    }
    return messages;
  }

  const std::vector<TokenId> answer_;
  const std::atomic<Duration>& step_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::map<Attempt, Sequence> sequences_;
  std::thread thread_;
};

class SimulatedWorkersImpl final : public SimulatedWorkers {
 public:
  explicit SimulatedWorkersImpl(Duration step) : step_(step) {}
  ~SimulatedWorkersImpl() override {
    for (const auto& worker : prefills_) worker->Stop();
    for (const auto& worker : decodes_) worker->Stop();
  }

  absl::Status Listen(const SimulatedWorkersOptions& options) {
    for (int32_t i = 0; i < options.prefill; ++i) {
      prefills_.push_back(std::make_unique<SimulatedPrefill>(options));
      BATON_RETURN_IF_ERROR(prefills_.back()->Listen(Role::kPrefill, i, options));
    }
    for (int32_t i = 0; i < options.decode; ++i) {
      decodes_.push_back(std::make_unique<SimulatedDecode>(options, &step_));
      BATON_RETURN_IF_ERROR(decodes_.back()->Listen(Role::kDecode, i, options));
    }
    return absl::OkStatus();
  }

  std::vector<std::string> addresses() const override {
    std::vector<std::string> all;
    for (const auto& worker : prefills_) all.push_back(worker->address());
    for (const auto& worker : decodes_) all.push_back(worker->address());
    return all;
  }
  void SetStep(Duration step) override { step_ = step; }
  int64_t sequences() const override {
    int64_t sum = 0;
    for (const auto& worker : decodes_) sum += worker->sequences();
    return sum;
  }

 private:
  std::atomic<Duration> step_;
  std::vector<std::unique_ptr<SimulatedPrefill>> prefills_;
  std::vector<std::unique_ptr<SimulatedDecode>> decodes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SimulatedWorkers>> SimulatedWorkers::Start(
    const SimulatedWorkersOptions& options) {
  if (options.decode < 1 || options.prefill < 0 || options.answer.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{} decode workers, {} prefill workers and answers of {} tokens",
                    options.decode, options.prefill, options.answer.size()));
  }
  auto workers = std::make_unique<SimulatedWorkersImpl>(options.step);
  BATON_RETURN_IF_ERROR(workers->Listen(options));
  return std::unique_ptr<SimulatedWorkers>(std::move(workers));
}

}  // namespace baton::bench
