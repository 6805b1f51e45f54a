// Requests that the fleet cannot take now, and streams that go on where another router left them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "router/dispatcher.h"
#include "router/error_code.h"
#include "router/key_gate.h"
#include "tests/router/answer.h"
#include "tests/router/cluster.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::PrefillCommand;
using worker_link::Role;

class DispatcherQueueTest : public testing::Test {
 protected:
  void Start(DispatcherOptions options = {}) {
    options.workers = {decode_.address(), prefill_.address()};
    dispatcher_ = MakeReadyDispatcher(std::move(options));
  }
  // As if others' prompts waited there.
  void KeepPrefillBusy() {
    worker_link::WorkerStatus busy = ScriptedWorker::IdleStatus();
    busy.running = 5;
    busy.prompt_tokens_queued = 1'000'000;
    prefill_.SetStatus(busy);
    ASSERT_TRUE(Eventually([&] {
      for (const WorkerView& worker : dispatcher_->Fleet()) {
        if (worker.running == 5) return true;
      }
      return false;
    }));
  }
  bool Waits(size_t requests) {
    const std::string line =
        "vllm:num_requests_waiting{model_name=\"demo\"} " + std::to_string(requests) + "\n";
    return Eventually([&] { return dispatcher_->MetricsText().find(line) != std::string::npos; });
  }

  ScriptedWorker decode_{Role::kDecode, "d0"};
  ScriptedWorker prefill_{Role::kPrefill, "p0"};
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(DispatcherQueueTest, ARequestWaitsUntilTheFleetHasRoom) {
  Start();
  KeepPrefillBusy();
  Answer answer;
  ASSERT_TRUE(dispatcher_->Submit(Text("one"), answer.Sink()).ok());
  EXPECT_TRUE(Waits(1));
  EXPECT_EQ(decode_.queued(), 0u);
  EXPECT_THAT(dispatcher_->MetricsText(), HasSubstr("baton_queue_requests{priority=\"normal\"} 1"));
  prefill_.SetStatus(ScriptedWorker::IdleStatus());
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  decode_.SendTokens(attempt, 0, {1});
  decode_.SendFinished(attempt, 1);
  EXPECT_TRUE(answer.AwaitEnd().finish);
  EXPECT_THAT(dispatcher_->MetricsText(), HasSubstr("baton_queue_seconds_count 1"));
}

TEST_F(DispatcherQueueTest, CancelledAndLateRequestsLeaveTheQueue) {
  Start();
  KeepPrefillBusy();
  Answer cancelled, late;
  const auto handle = dispatcher_->Submit(Text("one"), cancelled.Sink());
  ASSERT_TRUE(handle.ok());
  GenerateInput hasty = Text("two");
  hasty.timeout = milliseconds(1500);
  ASSERT_TRUE(dispatcher_->Submit(hasty, late.Sink()).ok());
  dispatcher_->Cancel(*handle);
  EXPECT_THAT(late.AwaitEnd().Error(), HasSubstr("DEADLINE_EXCEEDED: the request's deadline came"));
  // Forgotten right after its end was told.
  EXPECT_TRUE(Eventually([&] { return dispatcher_->running() == 0; }));
  prefill_.SetStatus(ScriptedWorker::IdleStatus());
  Answer next;
  ASSERT_TRUE(dispatcher_->Submit(Text("three"), next.Sink()).ok());
  EXPECT_EQ(decode_.Await<DecodeCommand>().prompt, DemoTokens("three"));
  EXPECT_FALSE(cancelled.Now().error);
}

TEST_F(DispatcherQueueTest, AFullQueueRefusesBeforeAnyWork) {
  DispatcherOptions options;
  options.max_waiting = 1;
  Start(options);
  EXPECT_TRUE(dispatcher_->CheckRoom().ok());
  KeepPrefillBusy();
  Answer answer;
  ASSERT_TRUE(dispatcher_->Submit(Text("one"), answer.Sink()).ok());
  for (const absl::Status& refused :
       {dispatcher_->CheckRoom(), dispatcher_->Submit(Text("two"), Answer().Sink()).status()}) {
    EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("the limit is 1"));
    EXPECT_TRUE(RetryAfter(refused).has_value());
  }
  // An unsound request is not even looked at.
  GenerateInput unsound = Text("");
  EXPECT_TRUE(absl::IsResourceExhausted(dispatcher_->Submit(unsound, Answer().Sink()).status()));
}

TEST_F(DispatcherQueueTest, ManyThatWaitAllGetTheirTurn) {
  Start();
  KeepPrefillBusy();
  constexpr int kRequests = 40;
  std::vector<Answer> answers(kRequests);
  for (Answer& answer : answers) {
    ASSERT_TRUE(dispatcher_->Submit(Text("one two"), answer.Sink()).ok());
  }
  EXPECT_TRUE(Waits(kRequests));
  prefill_.SetStatus(ScriptedWorker::IdleStatus());
  for (int i = 0; i < kRequests; ++i) {
    const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
    decode_.SendTokens(attempt, 0, {1});
    decode_.SendFinished(attempt, 1);
  }
  for (Answer& answer : answers) EXPECT_TRUE(answer.AwaitEnd().finish);
}

// 100 requests of one tenant wait; another's single one takes its turn beside them.
TEST_F(DispatcherQueueTest, AGreedyTenantDoesNotHoldUpAnother) {
  Start();
  KeepPrefillBusy();
  const auto meter = std::make_shared<KeyMeter>(KeyLimits{});
  const auto of = [&](const std::string& tenant) {
    ApiKey key;
    key.name = key.tenant = tenant;
    EXPECT_TRUE(meter->Enter(SystemClock().Now()).ok());
    GenerateInput input;
    std::vector<TokenId> prompt(900, 5);
    prompt[0] = static_cast<TokenId>(tenant.size());
    input.prompt = std::move(prompt);
    input.visit = std::make_shared<Visit>(key, meter);
    return input;
  };
  constexpr int kFlood = 100;
  std::vector<Answer> flood(kFlood);
  for (Answer& answer : flood) {
    ASSERT_TRUE(dispatcher_->Submit(of("greedy"), answer.Sink()).ok());
  }
  Answer single;
  ASSERT_TRUE(dispatcher_->Submit(of("other tenant"), single.Sink()).ok());
  ASSERT_TRUE(Waits(kFlood + 1));
  worker_link::WorkerStatus roomy = ScriptedWorker::IdleStatus();
  roomy.blocks_free = roomy.blocks_total = 1 << 20;
  decode_.SetStatus(roomy);
  prefill_.SetStatus(roomy);
  for (int begun = 1;; ++begun) {
    const auto decode = decode_.Await<DecodeCommand>();
    ASSERT_EQ(prefill_.Await<PrefillCommand>().attempt, decode.attempt);
    if (decode.prompt[0] == 12) {
      EXPECT_LE(begun, 6) << "of the others, those of one or two turns go before it";
      break;
    }
    ASSERT_LT(begun, kFlood);
    prefill_.Send({worker_link::PrefilledEvent{.attempt = decode.attempt}});
  }
}

TEST_F(DispatcherQueueTest, ATenantsSaltAndTokensAreItsOwn) {
  Start();
  ApiKey key;
  key.name = key.tenant = "acme";
  const auto meter = std::make_shared<KeyMeter>(KeyLimits{});
  ASSERT_TRUE(meter->Enter(SystemClock().Now()).ok());
  GenerateInput input = Text("one two three");
  input.cache_salt = "mine";
  input.visit = std::make_shared<Visit>(key, meter);
  Answer answer;
  ASSERT_TRUE(dispatcher_->Submit(std::move(input), answer.Sink()).ok());
  const auto decode = decode_.Await<DecodeCommand>();
  EXPECT_EQ(decode.cache_salt, "4:acme:mine");
  EXPECT_EQ(meter->usage().running, 1);
  decode_.SendTokens(decode.attempt, 0, {1, 2});
  decode_.SendFinished(decode.attempt, 2);
  answer.AwaitEnd();
  EXPECT_TRUE(Eventually([&] { return meter->usage().running == 0; }));
  EXPECT_EQ(meter->usage().tokens, decode.prompt.size() + 2);
}

TEST_F(DispatcherQueueTest, AResumedRequestGoesOnAfterItsTokens) {
  Start();
  const std::vector<TokenId> ids = DemoTokens(" Paris, of course");
  GenerateInput input = Text("The capital is");
  input.resume_tokens = {ids[0], ids[1]};
  EXPECT_THAT(std::string(dispatcher_->Submit(input, Answer().Sink()).status().message()),
              HasSubstr("resume_tokens need the seed"));
  input.has_seed = true;
  input.sampling.seed = 7;
  Answer answer;
  ASSERT_TRUE(dispatcher_->Submit(input, answer.Sink()).ok());
  const auto decode = decode_.Await<DecodeCommand>();
  std::vector<TokenId> prompt = DemoTokens("The capital is");
  prompt.insert(prompt.end(), {ids[0], ids[1]});
  EXPECT_EQ(decode.prompt, prompt);
  EXPECT_EQ(decode.output_tokens, 2);
  EXPECT_EQ(decode.sampling.seed, 7u);
  EXPECT_EQ(prefill_.Await<PrefillCommand>().output_tokens, 2);
  decode_.SendTokens(decode.attempt, 2, {ids.begin() + 2, ids.end()});
  decode_.SendFinished(decode.attempt, static_cast<int32_t>(ids.size()));
  const Collected all = answer.AwaitEnd();
  EXPECT_EQ(all.tokens, std::vector<TokenId>(ids.begin() + 2, ids.end()));
  EXPECT_EQ(all.text, " of course");
  ASSERT_TRUE(all.finish);
  EXPECT_EQ(all.finish->output_tokens, static_cast<int32_t>(ids.size()));
}

TEST_F(DispatcherQueueTest, AResumedAnswerThatIsWholeEndsAtOnce) {
  Start();
  GenerateInput input = Text("The capital is");
  input.sampling.temperature = 0;
  input.has_max_tokens = true;
  input.sampling.max_tokens = 2;
  input.resume_tokens = {5, 6};
  Answer answer;
  ASSERT_TRUE(dispatcher_->Submit(input, answer.Sink()).ok());
  const Collected all = answer.AwaitEnd();
  ASSERT_TRUE(all.finish);
  EXPECT_EQ(all.finish->reason, FinishReason::kLength);
  EXPECT_EQ(all.finish->output_tokens, 2);
  EXPECT_EQ(decode_.queued(), 0u);
  EXPECT_TRUE(Eventually([&] { return dispatcher_->running() == 0; }));
}

}  // namespace
}  // namespace baton::router
