// Many streams that leave a worker at once: they move at the pace of the fleet, beside new
// requests.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "router/dispatcher.h"
#include "tests/router/answer.h"
#include "tests/router/cluster.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::PrefillCommand;
using worker_link::PrefilledEvent;
using worker_link::Role;
using worker_link::WorkerStatus;

constexpr int32_t kPromptTokens = 900;

class DispatcherMovingTest : public testing::Test {
 protected:
  void Start(DispatcherOptions options = {}) {
    second_.SetStatus(Roomy(/*draining=*/true));
    first_.SetStatus(Roomy());
    options.stall_timeout = std::chrono::hours(1);
    options.workers = {first_.address(), second_.address(), prefill_.address()};
    dispatcher_ = MakeDispatcher(std::move(options));
    ASSERT_TRUE(Eventually([&] {
      const std::vector<WorkerView> fleet = dispatcher_->Fleet();
      return fleet[0].blocks_total > 64 && fleet[1].state == "drained" && fleet[2].state == "ready";
    }));
  }
  static WorkerStatus Roomy(bool draining = false) {
    WorkerStatus status;
    status.blocks_free = status.blocks_total = 1 << 20;
    status.draining = draining;
    return status;
  }
  // Streams on the first decode worker, each with one token.
  void StartStreams(size_t count) {
    answers_ = std::vector<Answer>(count);
    for (size_t i = 0; i < count; ++i) {
      GenerateInput input;
      // Nothing in common, so that each costs its tokens.
      std::vector<TokenId> prompt(kPromptTokens, 5);
      prompt[0] = static_cast<TokenId>(100 + i);
      input.prompt = prompt;
      ASSERT_TRUE(dispatcher_->Submit(std::move(input), answers_[i].Sink()).ok());
    }
    for (size_t i = 0; i < count; ++i) {
      const Attempt attempt = first_.Await<DecodeCommand>().attempt;
      prefill_.Await<PrefillCommand>();
      first_.SendTokens(attempt, 0, {10});
      prefill_.Send({PrefilledEvent{.attempt = attempt}});
      attempts_.push_back(attempt);
    }
    for (Answer& answer : answers_) answer.AwaitTokens(1);
  }
  void FinishStreams() {
    for (size_t i = 0; i < answers_.size(); ++i) {
      const Collected all = answers_[i].AwaitEnd();
      EXPECT_TRUE(all.finish) << i << ": " << all.Error();
      EXPECT_EQ(all.tokens, (std::vector<TokenId>{10, 11})) << i;
      EXPECT_FALSE(all.out_of_order);
    }
  }

  ScriptedWorker first_{Role::kDecode, "d0"};
  ScriptedWorker second_{Role::kDecode, "d1"};
  ScriptedWorker prefill_{Role::kPrefill, "p0"};
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<Answer> answers_;
  std::vector<Attempt> attempts_;
};

TEST_F(DispatcherMovingTest, StreamsOfALostWorkerDoNotComeAsAStormNorStarveNewRequests) {
  constexpr size_t kStreams = 30;
  Start();
  StartStreams(kStreams);
  second_.SetStatus(Roomy());
  ASSERT_TRUE(Eventually([&] { return dispatcher_->Fleet()[1].state == "ready"; }));
  first_.Stop();
  // As many as a prefill worker takes of anybody: 4,096 tokens' worth.
  ASSERT_TRUE(Eventually([&] {
    return dispatcher_->MetricsText().find("baton_queue_requests{priority=\"normal\"} 25") !=
           std::string::npos;
  })) << dispatcher_->MetricsText();
  EXPECT_TRUE(Eventually([&] { return second_.queued() == 5; }));
  Answer fresh;
  ASSERT_TRUE(dispatcher_->Submit(Text("a new one"), fresh.Sink()).ok());
  size_t fresh_at = 0;
  std::vector<std::pair<Attempt, int32_t>> moved;
  for (size_t i = 0; i < kStreams + 1; ++i) {
    const auto decode = second_.Await<DecodeCommand>();
    EXPECT_LE(prefill_.queued(), 8u);
    const auto prefill = prefill_.Await<PrefillCommand>();
    ASSERT_EQ(prefill.attempt, decode.attempt);
    if (decode.output_tokens == 0) fresh_at = i;
    second_.SendTokens(decode.attempt, decode.output_tokens, {11});
    prefill_.Send({PrefilledEvent{.attempt = decode.attempt}});
    moved.emplace_back(decode.attempt, decode.output_tokens + 1);
  }
  for (const auto& [attempt, tokens] : moved) second_.SendFinished(attempt, tokens);
  EXPECT_GE(fresh_at, 5u);
  EXPECT_LE(fresh_at, 9u) << "it does not wait for all that move";
  FinishStreams();
  EXPECT_TRUE(fresh.AwaitEnd().finish);
}

TEST_F(DispatcherMovingTest, TheRetryBudgetHoldsForThoseInLineToo) {
  constexpr size_t kStreams = 30;
  DispatcherOptions options;
  options.retry_share = 0;  // 16 only
  Start(options);
  StartStreams(kStreams);
  second_.SetStatus(Roomy());
  ASSERT_TRUE(Eventually([&] { return dispatcher_->Fleet()[1].state == "ready"; }));
  first_.Stop();
  for (size_t i = 0; i < 16; ++i) {
    const auto decode = second_.Await<DecodeCommand>();
    prefill_.Await<PrefillCommand>();
    second_.SendTokens(decode.attempt, 1, {11});
    prefill_.Send({PrefilledEvent{.attempt = decode.attempt}});
    attempts_.push_back(decode.attempt);
  }
  for (size_t i = kStreams; i < attempts_.size(); ++i) second_.SendFinished(attempts_[i], 2);
  size_t finished = 0;
  for (Answer& answer : answers_) {
    const Collected all = answer.AwaitEnd();
    finished += all.finish ? 1 : 0;
    if (!all.finish) {
      EXPECT_THAT(all.Error(), HasSubstr("placed again lately"));
    }
  }
  EXPECT_EQ(finished, 16u);
}

TEST_F(DispatcherMovingTest, StreamsOfALeavingWorkerGoOnThereUntilTheirTurn) {
  constexpr size_t kStreams = 4;
  Start();
  StartStreams(kStreams);
  second_.SetStatus(Roomy());
  WorkerStatus busy = ScriptedWorker::IdleStatus();
  busy.running = 5;
  busy.prompt_tokens_queued = 1'000'000;
  prefill_.SetStatus(busy);
  ASSERT_TRUE(Eventually([&] {
    return dispatcher_->Fleet()[1].state == "ready" && dispatcher_->Fleet()[2].running == 5;
  }));
  WorkerStatus leaving = Roomy(/*draining=*/true);
  leaving.leaving = true;
  first_.SetStatus(leaving);
  ASSERT_TRUE(Eventually([&] {
    return dispatcher_->MetricsText().find("baton_queue_requests{priority=\"normal\"} 4") !=
           std::string::npos;
  }));
  first_.SetStatus(leaving);  // told again: they are in line already
  // One ends there, and one gets a token there.
  first_.SendTokens(attempts_[0], 1, {11});
  first_.SendFinished(attempts_[0], 2);
  EXPECT_TRUE(answers_[0].AwaitEnd().finish);
  first_.SendTokens(attempts_[1], 1, {11});
  EXPECT_EQ(answers_[1].AwaitTokens(2).tokens.size(), 2u);
  EXPECT_EQ(first_.queued(), 0u) << "nothing was cancelled";
  prefill_.SetStatus(ScriptedWorker::IdleStatus());
  for (size_t i = 1; i < kStreams; ++i) {
    const auto decode = second_.Await<DecodeCommand>();
    EXPECT_EQ(first_.Await<CancelCommand>().attempt.request, decode.attempt.request);
    EXPECT_EQ(decode.output_tokens, decode.attempt.request == attempts_[1].request ? 2 : 1);
    if (decode.output_tokens == 1) second_.SendTokens(decode.attempt, 1, {11});
    second_.SendFinished(decode.attempt, 2);
  }
  FinishStreams();
}

}  // namespace
}  // namespace baton::router
