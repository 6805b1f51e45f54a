#pragma once

// A Dispatcher whose answers the test writes: for the front ends alone. The real one is tested in
// dispatcher_test.cc, both together in tests/e2e.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/sampling.h"
#include "router/dispatcher.h"
#include "router/request_record.h"

namespace baton::router {

inline constexpr char kTestModel[] = "test-model";
inline constexpr int32_t kTestVocab = 1000;

struct Submission {
  Dispatcher::Handle handle = 0;
  GenerateInput input;
  ResponseSink sink;
};

// A delta of one token per text, without logprobs.
inline Delta TextDelta(int32_t index, const std::string& text) {
  Delta delta;
  delta.index = index;
  TokenDetail detail;
  detail.token = 100 + index;
  detail.text = text;
  detail.logprob = -0.5f;
  detail.top = {{detail.token, text, -0.5f}, {7, "\xE2\x80", -1.25f}};
  delta.tokens.push_back(detail);
  delta.text = text;
  return delta;
}

inline Finish TestFinish(int32_t output_tokens, FinishReason reason = FinishReason::kStop) {
  Finish finish;
  finish.reason = reason;
  finish.prompt_tokens = 5;
  finish.output_tokens = output_tokens;
  finish.stats.request_id = "0123456789abcdef-0000000000000001";
  finish.stats.prefill_worker = "prefill-0";
  finish.stats.decode_worker = "decode-0";
  finish.stats.transport = "shm";
  finish.stats.kv_blocks_moved = 3;
  finish.stats.kv_bytes_moved = 4096;
  finish.stats.cached_prompt_tokens = 2;
  finish.stats.ttft_s = 0.25;
  finish.stats.mean_itl_s = 0.5;
  finish.stats.total_s = 1;
  finish.stats.handover_s = 0.125;
  finish.stats.migrations = 2;
  return finish;
}

class ScriptedDispatcher final : public Dispatcher {
 public:
  using Script = std::function<void(const Submission&)>;

  // "Hello", ", ", "world" and a stop.
  static void SayHello(const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, "Hello"));
    submission.sink.on_delta(TextDelta(1, ", "));
    submission.sink.on_delta(TextDelta(2, "world"));
    submission.sink.on_finish(TestFinish(3));
  }

  // `script` runs for each submission, one after the other, on the dispatcher's own thread.
  explicit ScriptedDispatcher(Script script = SayHello)
      : script_(std::move(script)), thread_([this] { Run(); }) {}

  ~ScriptedDispatcher() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  absl::StatusOr<Handle> Submit(GenerateInput input, ResponseSink sink) override {
    if (!input.model.empty() && input.model != kTestModel) {
      return absl::NotFoundError("there is no model '" + input.model + "'");
    }
    if (const absl::Status status = CheckSamplingParams(input.sampling, kTestVocab); !status.ok()) {
      return status;
    }
    const std::lock_guard lock(mutex_);
    if (refuse_after_ == 0) return refusal_;
    --refuse_after_;
    const Handle handle = ++last_handle_;
    inputs_.push_back(input);
    queue_.push_back({handle, std::move(input), std::move(sink)});
    changed_.notify_all();
    return handle;
  }

  absl::Status CheckRoom() const override {
    const std::lock_guard lock(room_mutex_);
    return room_;
  }
  void set_room(absl::Status room) {
    const std::lock_guard lock(room_mutex_);
    room_ = std::move(room);
  }

  void Cancel(Handle handle) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(handle);
    changed_.notify_all();
  }

  // One token a byte (and one a message, for its role).
  absl::StatusOr<std::vector<TokenId>> Tokenize(const GenerateInput& input) const override {
    std::vector<TokenId> tokens;
    const auto add = [&tokens](const std::string& text) {
      for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    };
    if (const auto* text = std::get_if<std::string>(&input.prompt)) add(*text);
    if (const auto* ids = std::get_if<std::vector<TokenId>>(&input.prompt)) tokens = *ids;
    if (const auto* chat = std::get_if<std::vector<text::ChatMessage>>(&input.prompt)) {
      for (const text::ChatMessage& message : *chat) {
        tokens.push_back(999);
        add(message.content);
      }
    }
    return tokens;
  }

  absl::StatusOr<std::string> Detokenize(const std::string& model,
                                         const std::vector<TokenId>& tokens) const override {
    if (!model.empty() && model != kTestModel) return absl::NotFoundError("no model " + model);
    std::string text;
    for (const TokenId token : tokens) text.push_back(static_cast<char>(token));
    return text;
  }

  std::vector<ModelInfo> Models() const override { return {{kTestModel, 2048, kTestVocab}}; }
  std::vector<WorkerView> Fleet() const override {
    WorkerView worker;
    worker.name = "decode-0";
    worker.role = "decode";
    worker.address = "127.0.0.1:1";
    worker.state = "ready";
    worker.blocks_free = 10;
    worker.blocks_total = 12;
    worker.paths = {{"prefill-0", "shm", 6e9, 12e9, true}};
    return {worker};
  }
  std::vector<DiscoveryView> Discovery() const override {
    return {{"etcd", "/baton/", false, "UNAVAILABLE: gone", 3, 2}};
  }
  std::vector<RequestRecord> LiveRequests() const override { return live_; }
  void SetLive(std::vector<RequestRecord> live) { live_ = std::move(live); }
  bool Ready() const override { return ready_; }
  void AnnounceDrain() override { ready_ = false; }
  std::string MetricsText() const override { return "baton_test_metric 1\n"; }
  bool Drain(Duration) override { return true; }
  int32_t running() const override { return 0; }
  absl::Status SetDuty(const DutyChange& change) override {
    const std::lock_guard lock(mutex_);
    duties_.push_back(change);
    return duty_answer_;
  }
  void AnswerDuty(absl::Status status) {
    const std::lock_guard lock(mutex_);
    duty_answer_ = std::move(status);
  }
  std::vector<DutyChange> duties() {
    const std::lock_guard lock(mutex_);
    return duties_;
  }

  void set_ready(bool ready) { ready_ = ready; }
  // The submissions after the next `count` are answered with `status`.
  void RefuseAfter(int32_t count, absl::Status status) {
    const std::lock_guard lock(mutex_);
    refuse_after_ = count;
    refusal_ = std::move(status);
  }

  // What was submitted so far; waits until there are `count`, or fails by being shorter.
  std::vector<GenerateInput> WaitForInputs(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return inputs_.size() >= count; });
    return inputs_;
  }
  bool WaitForCancel(Handle handle) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return cancelled_.contains(handle); });
  }
  size_t cancelled_count() {
    const std::lock_guard lock(mutex_);
    return cancelled_.size();
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};

  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      const Submission submission = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      script_(submission);
      lock.lock();
    }
  }

  const Script script_;
  std::vector<RequestRecord> live_;  // set before it is asked
  std::atomic<bool> ready_{true};
  mutable std::mutex room_mutex_;
  absl::Status room_;  // guarded by room_mutex_
  std::mutex mutex_;   // guards all below
  std::condition_variable changed_;
  std::deque<Submission> queue_;
  std::vector<GenerateInput> inputs_;
  std::set<Handle> cancelled_;
  Handle last_handle_ = 0;
  std::vector<DutyChange> duties_;
  absl::Status duty_answer_;
  int32_t refuse_after_ = -1;
  absl::Status refusal_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace baton::router
