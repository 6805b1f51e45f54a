// The dispatcher with workers that come late, die and come back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "router/retry_budget.h"
#include "tests/common/temp_dir.h"
#include "tests/router/answer.h"
#include "tests/router/cluster.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using worker_link::CancelCommand;
using worker_link::Command;
using worker_link::DecodeCommand;
using worker_link::Event;
using worker_link::FinishedEvent;
using worker_link::PrefillCommand;
using worker_link::PrefilledEvent;
using worker_link::Role;
using worker_link::TokensEvent;

void FinishAlone(ScriptedWorker& worker, const Attempt& attempt) {
  worker.SendTokens(attempt, 0, {10, 11});
  worker.SendFinished(attempt, 2);
}

TEST(DispatcherFaultsTest, ARequestWaitsForItsWorker) {
  const test::TempDir directory;
  const std::filesystem::path path = directory.File("workers");
  std::ofstream(path) << "# none yet\n";
  DispatcherOptions options;
  options.workers_file = path;
  options.worker_wait = std::chrono::seconds(20);
  const auto dispatcher = MakeDispatcher(options);
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  EXPECT_FALSE(dispatcher->Ready());
  EXPECT_THAT(dispatcher->MetricsText(),
              HasSubstr("vllm:num_requests_waiting{model_name=\"demo\"} 1"));
  ScriptedWorker decode(Role::kDecode, "d0");
  std::ofstream(path) << decode.address() << "\n";
  FinishAlone(decode, decode.Await<DecodeCommand>().attempt);
  EXPECT_TRUE(answer.AwaitEnd().finish);
}

TEST(DispatcherFaultsTest, WithoutAWorkerTheWaitEnds) {
  ScriptedWorker prefill(Role::kPrefill, "p0");
  DispatcherOptions options = Over({&prefill});
  options.worker_wait = milliseconds(100);
  const auto dispatcher = MakeReadyDispatcher(options);
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  EXPECT_THAT(answer.AwaitEnd().Error(),
              HasSubstr("UNAVAILABLE: no decode worker is connected (1 workers known), also after "
                        "waiting 0.1 s"));
  options.worker_wait = Duration::zero();
  const auto impatient = MakeReadyDispatcher(options);
  EXPECT_TRUE(absl::IsUnavailable(impatient->Submit(Text("hello"), Answer().Sink()).status()));
  EXPECT_EQ(impatient->running(), 0);
}

TEST(DispatcherFaultsTest, ADecodeWorkerLostBeforeTheFirstTokenCostsOnlyTime) {
  ScriptedWorker first(Role::kDecode, "d0");
  ScriptedWorker second(Role::kDecode, "d1");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  const auto dispatcher = MakeReadyDispatcher(Over({&first, &second, &prefill}));
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  const Attempt lost = first.Await<DecodeCommand>().attempt;
  prefill.Await<PrefillCommand>();
  first.Stop();
  EXPECT_EQ(prefill.Await<CancelCommand>().attempt, lost);
  const auto again = second.Await<DecodeCommand>();
  EXPECT_EQ(again.attempt.request, lost.request);
  EXPECT_EQ(again.attempt.epoch, 1u);
  EXPECT_EQ(prefill.Await<PrefillCommand>().attempt, again.attempt);
  prefill.SendTokens(lost, 0, {99});  // of the old epoch: dropped
  FinishAlone(second, again.attempt);
  const Collected all = answer.AwaitEnd();
  ASSERT_TRUE(all.finish) << all.Error();
  EXPECT_EQ(all.tokens, (std::vector<TokenId>{10, 11}));
  EXPECT_THAT(dispatcher->MetricsText(), HasSubstr("baton_requests_placed_again_total 1"));
}

TEST(DispatcherFaultsTest, ALostPrefillWorkerIsReplacedByTheDecodeWorkerItself) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  const auto dispatcher = MakeReadyDispatcher(Over({&decode, &prefill}));
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  const Attempt lost = decode.Await<DecodeCommand>().attempt;
  prefill.Stop();
  EXPECT_EQ(decode.Await<CancelCommand>().attempt, lost);
  const auto again = decode.Await<DecodeCommand>();
  EXPECT_EQ(again.attempt.epoch, 1u);
  EXPECT_FALSE(again.handoff);
  FinishAlone(decode, again.attempt);
  EXPECT_TRUE(answer.AwaitEnd().finish);
}

TEST(DispatcherFaultsTest, ADecodeWorkerLostInMidStreamIsReplacedBehindWhatWasDelivered) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  const auto dispatcher = MakeReadyDispatcher(Over({&first, &second, &prefill}));
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  const auto lost = first.Await<DecodeCommand>();
  prefill.Await<PrefillCommand>();
  EXPECT_EQ(lost.output_tokens, 0);
  first.SendTokens(lost.attempt, 0, {10, 11, 12});
  answer.AwaitTokens(3);
  first.Stop();
  EXPECT_EQ(prefill.Await<CancelCommand>().attempt, lost.attempt);
  const auto again = second.Await<DecodeCommand>();
  EXPECT_EQ(again.attempt.request, lost.attempt.request);
  EXPECT_EQ(again.attempt.epoch, 1u);
  EXPECT_EQ(again.output_tokens, 3);
  EXPECT_EQ(again.sampling.seed, lost.sampling.seed);
  EXPECT_EQ(again.sampling.max_tokens, lost.sampling.max_tokens);
  std::vector<TokenId> prompt = lost.prompt;
  prompt.insert(prompt.end(), {10, 11, 12});
  EXPECT_EQ(again.prompt, prompt);
  const auto prefilled = prefill.Await<PrefillCommand>();
  EXPECT_EQ(prefilled.prompt, prompt);
  EXPECT_EQ(prefilled.output_tokens, 3);
  prefill.SendTokens(again.attempt, 3, {13});
  second.SendTokens(again.attempt, 3, {13, 14});
  second.SendFinished(again.attempt, 5);
  const Collected all = answer.AwaitEnd();
  ASSERT_TRUE(all.finish) << all.Error();
  EXPECT_EQ(all.tokens, (std::vector<TokenId>{10, 11, 12, 13, 14}));
  EXPECT_FALSE(all.out_of_order);
  EXPECT_EQ(all.finish->output_tokens, 5);
  EXPECT_EQ(all.finish->stats.migrations, 1);
  EXPECT_THAT(dispatcher->MetricsText(), HasSubstr("baton_migrations_total{reason=\"lost\"} 1"));
}

TEST(DispatcherFaultsTest, WithoutAnotherDecodeWorkerTheStreamEndsWithBothReasons) {
  ScriptedWorker decode(Role::kDecode, "d0");
  DispatcherOptions options = Over({&decode});
  options.worker_wait = milliseconds(100);
  const auto dispatcher = MakeReadyDispatcher(options);
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  decode.SendTokens(decode.Await<DecodeCommand>().attempt, 0, {10, 11, 12});
  answer.AwaitTokens(3);
  decode.Stop();
  const Collected all = answer.AwaitEnd();
  EXPECT_THAT(all.Error(), HasSubstr("UNAVAILABLE: decode worker 'd0' was lost after 3 tokens"));
  EXPECT_THAT(all.Error(), HasSubstr("no decode worker is connected"));
  EXPECT_EQ(all.endings, 1);
}

TEST(DispatcherFaultsTest, AWorkerThatRefusesIsReplacedAndWhenAllDoThatIsTheAnswer) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  const auto dispatcher = MakeReadyDispatcher(Over({&first, &second}));
  const auto full = absl::ResourceExhaustedError("queue full");
  for (const bool both : {false, true}) {
    Answer answer;
    ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
    first.SendFailed(first.Await<DecodeCommand>().attempt, full);
    const auto again = second.Await<DecodeCommand>();
    if (both) {
      second.SendFailed(again.attempt, full);
    } else {
      FinishAlone(second, again.attempt);
    }
    const Collected all = answer.AwaitEnd();
    EXPECT_EQ(all.finish.has_value(), !both);
    if (!both) continue;
    EXPECT_THAT(all.Error(), HasSubstr("RESOURCE_EXHAUSTED: decode worker 'd1'"));
  }
}

TEST(DispatcherFaultsTest, ADrainedWorkersStreamsMove) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  DispatcherOptions options = Over({&first, &second});
  options.max_migrations = 0;
  const auto dispatcher = MakeReadyDispatcher(options);
  Answer answer;
  ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  const auto before = first.Await<DecodeCommand>();
  first.SendTokens(before.attempt, 0, {10});
  answer.AwaitTokens(1);
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.draining = status.leaving = true;
  first.SetStatus(status);
  EXPECT_EQ(first.Await<CancelCommand>().attempt, before.attempt);
  const auto again = second.Await<DecodeCommand>();
  second.SendTokens(again.attempt, 1, {11});
  second.SendFinished(again.attempt, 2);
  EXPECT_EQ(answer.AwaitEnd().tokens, (std::vector<TokenId>{10, 11}));
  EXPECT_THAT(dispatcher->MetricsText(), HasSubstr("baton_migrations_total{reason=\"drained\"} 1"));
}

TEST(DispatcherFaultsTest, TheFleetsBudgetBoundsWhatIsPlacedAgain) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  DispatcherOptions options = Over({&first, &second});
  options.retry_share = 0;
  const auto dispatcher = MakeReadyDispatcher(options);
  constexpr int kRequests = 2 * static_cast<int>(RetryBudget::kFloor) + 8;
  std::vector<Answer> answers(kRequests);
  for (Answer& answer : answers) {
    ASSERT_TRUE(dispatcher->Submit(Text("hello"), answer.Sink()).ok());
  }
  for (int i = 0; i < kRequests / 2; ++i) {
    first.Await<DecodeCommand>();
    second.Await<DecodeCommand>();
  }
  first.Stop();
  for (int i = 0; i < RetryBudget::kFloor; ++i) {
    EXPECT_EQ(second.Await<DecodeCommand>().attempt.epoch, 1u);
  }
  EXPECT_EQ(second.queued(), 0u);
  const auto refused = [&] {
    return std::ranges::count_if(answers, [](const Answer& a) { return a.Now().endings > 0; });
  };
  EXPECT_TRUE(Eventually([&] { return refused() == kRequests / 2 - RetryBudget::kFloor; }));
  EXPECT_EQ(second.queued(), 0u);
  for (const Answer& answer : answers) {
    if (answer.Now().endings == 0) continue;
    EXPECT_THAT(answer.Now().Error(), HasSubstr("so many requests were placed again lately"));
  }
}

// Answers like a worker, from within the link's calls: token 0 as a prefill worker, six tokens as a
// decode worker. Some attempts are never answered, so that they are there to be lost.
std::vector<Event> AnswerAtOnce(const Command& command) {
  if (const auto* prefill = std::get_if<PrefillCommand>(&command)) {
    return {TokensEvent{prefill->attempt, {{100, 0, 0, {}}}}, PrefilledEvent{prefill->attempt}};
  }
  const auto* decode = std::get_if<DecodeCommand>(&command);
  if (decode == nullptr || decode->attempt.request.low % 7 == 0) return {};
  TokensEvent tokens{decode->attempt, {}};
  for (int32_t i = 0; i < 6; ++i) tokens.tokens.push_back({100 + i, i, 0, {}});
  FinishedEvent finished;
  finished.attempt = decode->attempt;
  finished.reason = FinishReason::kLength;
  finished.output_tokens = 6;
  return {std::move(tokens), finished};
}

struct Sent {
  Answer answer;
  bool cancelled = false;
};

// One client: submits, sometimes cancels, and does not wait for answers.
void SendMany(Dispatcher& dispatcher, uint64_t seed, int requests, std::vector<Sent>& sent) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < requests; ++i) {
    Sent& one = sent.emplace_back();
    const auto handle = dispatcher.Submit(Text("hello there"), one.answer.Sink());
    ASSERT_TRUE(handle.ok()) << handle.status().ToString();
    one.cancelled = random() % 5 == 0;
    if (one.cancelled) dispatcher.Cancel(*handle);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
  }
}

// True when it finished.
bool CheckEnded(const Sent& sent) {
  const Collected all = sent.answer.Now();
  EXPECT_FALSE(all.out_of_order);
  EXPECT_LE(all.endings, 1);
  EXPECT_GE(all.endings, sent.cancelled ? 0 : 1);
  for (size_t i = 0; i < all.tokens.size(); ++i) {
    EXPECT_EQ(all.tokens[i], 100 + static_cast<TokenId>(i));
  }
  EXPECT_TRUE(!all.finish || all.tokens.size() == 6);
  return all.finish.has_value();
}

// Many clients, workers that die and come back, and clients that leave: every request that was
// accepted and not cancelled ends exactly once, in order.
TEST(DispatcherFaultsTest, EveryRequestEndsOnceWhileWorkersComeAndGo) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  constexpr int kClients = 3;
  constexpr int kRequests = 150;
  std::vector<std::unique_ptr<ScriptedWorker>> workers;
  DispatcherOptions options;
  for (const Role role : {Role::kDecode, Role::kDecode, Role::kPrefill, Role::kPrefill}) {
    workers.push_back(std::make_unique<ScriptedWorker>(role, "w" + std::to_string(workers.size()),
                                                       "127.0.0.1:0", AnswerAtOnce));
    options.workers.push_back(workers.back()->address());
  }
  options.request_timeout = std::chrono::seconds(3);
  options.worker_wait = std::chrono::seconds(20);
  const auto dispatcher = MakeReadyDispatcher(options);

  std::vector<std::vector<Sent>> sent(kClients);
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      SendMany(*dispatcher, seed + static_cast<uint64_t>(client), kRequests,
               sent[static_cast<size_t>(client)]);
    });
  }
  std::mt19937_64 random(seed ^ 1);
  for (int round = 0; round < 6; ++round) {
    const size_t victim = random() % workers.size();
    const std::string address = options.workers[victim];
    const std::string name = workers[victim]->name();
    workers[victim]->Stop();
    workers[victim] = std::make_unique<ScriptedWorker>(victim < 2 ? Role::kDecode : Role::kPrefill,
                                                       name, address, AnswerAtOnce);
    std::this_thread::sleep_for(milliseconds(30));
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(dispatcher->Drain(std::chrono::seconds(20)));
  int finished = 0;
  for (const std::vector<Sent>& of_client : sent) {
    for (const Sent& one : of_client) finished += CheckEnded(one) ? 1 : 0;
  }
  EXPECT_GT(finished, kClients * kRequests / 2);
}

}  // namespace
}  // namespace baton::router
