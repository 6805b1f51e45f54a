#include "router/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "router/telemetry.h"
#include "tests/router/answer.h"
#include "tests/router/cluster.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::PrefillCommand;
using worker_link::Role;

class DispatcherTest : public testing::Test {
 protected:
  // Over decode_ and prefill_.
  void Start(DispatcherOptions options = {}) {
    options.workers = {decode_.address(), prefill_.address()};
    dispatcher_ = MakeReadyDispatcher(std::move(options));
  }
  Dispatcher::Handle Submit(GenerateInput input, Answer& answer) {
    auto handle = dispatcher_->Submit(std::move(input), answer.Sink());
    EXPECT_TRUE(handle.ok()) << handle.status().ToString();
    return handle.value_or(0);
  }

  ScriptedWorker decode_{Role::kDecode, "d0"};
  ScriptedWorker prefill_{Role::kPrefill, "p0"};
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(DispatcherTest, TellsBothWorkersAndStreamsTheAnswer) {
  Start();
  Answer answer;
  GenerateInput input = Text("The capital of France is");
  input.sampling.temperature = 0.5f;
  input.cache_salt = "tenant";
  Submit(input, answer);
  const auto decode = decode_.Await<DecodeCommand>();
  const auto prefill = prefill_.Await<PrefillCommand>();
  EXPECT_EQ(decode.attempt, prefill.attempt);
  EXPECT_EQ(decode.attempt.epoch, 0u);
  EXPECT_EQ(decode.prompt, DemoTokens("The capital of France is"));
  EXPECT_EQ(prefill.prompt, decode.prompt);
  EXPECT_TRUE(decode.handoff);
  EXPECT_EQ(prefill.target_address, "handoff:d0");
  EXPECT_EQ(prefill.target_name, "d0");
  EXPECT_EQ(prefill.cache_salt, "tenant");
  EXPECT_FLOAT_EQ(prefill.sampling.temperature, 0.5f);
  EXPECT_EQ(prefill.sampling.seed, decode.sampling.seed);
  EXPECT_EQ(decode.sampling.max_tokens, 1024 - 5) << "the workers' context is smaller";
  EXPECT_GT(decode.timeout, milliseconds(0));

  const std::vector<TokenId> ids = DemoTokens(" Paris, of");
  prefill_.SendTokens(decode.attempt, 0, {ids[0]});
  EXPECT_THAT(answer.AwaitTokens(1).tokens, ElementsAre(ids[0]));
  prefill_.Send({worker_link::PrefilledEvent{decode.attempt}});
  decode_.SendTokens(decode.attempt, 0, ids);
  decode_.SendFinished(decode.attempt, static_cast<int32_t>(ids.size()));
  const Collected all = answer.AwaitEnd();
  EXPECT_EQ(all.tokens, ids);
  EXPECT_EQ(all.text, " Paris, of");
  ASSERT_TRUE(all.finish) << all.Error();
  EXPECT_EQ(all.finish->prompt_tokens, 5);
  EXPECT_EQ(all.finish->stats.prefill_worker, "p0");
  EXPECT_FALSE(all.out_of_order);
  EXPECT_TRUE(Eventually([&] { return dispatcher_->running() == 0; }));
}

TEST_F(DispatcherTest, TellsHowFarARequestHasComeAndRemembersIt) {
  const auto telemetry = *Telemetry::Create({});
  DispatcherOptions options;
  options.telemetry = telemetry.get();
  Start(options);
  auto call = std::make_shared<CallInfo>();
  call->request_id = "my-call";
  call->received = SystemClock().Now();
  call->trace = NewTrace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", false, 0);
  GenerateInput input = Text("The capital of France is");
  input.call = call;
  input.choice = 3;
  Answer answer;
  Submit(input, answer);
  const auto decode = decode_.Await<DecodeCommand>();
  EXPECT_EQ(decode.traceparent, Traceparent(call->trace));
  EXPECT_EQ(prefill_.Await<PrefillCommand>().traceparent, decode.traceparent);
  ASSERT_THAT(dispatcher_->LiveRequests(), SizeIs(1));
  RequestRecord record = dispatcher_->LiveRequests()[0];
  EXPECT_EQ(record.state, "prefill");
  EXPECT_EQ(record.id, ToString(decode.attempt.request));
  EXPECT_EQ(record.call->request_id, "my-call");
  EXPECT_EQ(record.choice, 3);
  EXPECT_EQ(record.model, "demo");
  EXPECT_EQ(record.input_tokens, 5);
  EXPECT_EQ(record.prefill_worker, "p0");
  EXPECT_TRUE(record.stages.Has(Stage::kPlaced));
  EXPECT_FALSE(record.stages.Has(Stage::kFirstToken));

  const std::vector<TokenId> ids = DemoTokens(" Paris, of");
  worker_link::TokensEvent first{decode.attempt, {{ids[0], 0, 0, {}}}};
  first.prefill = worker_link::PrefillTimes{.cached_prompt_tokens = 4, .chunks = 2};
  prefill_.Send({first});
  answer.AwaitTokens(1);
  EXPECT_EQ(dispatcher_->LiveRequests().at(0).state, "decode");
  EXPECT_THAT(telemetry->Recent(), SizeIs(0));
  decode_.SendTokens(decode.attempt, 0, ids);
  worker_link::FinishedEvent finished{.attempt = decode.attempt};
  finished.output_tokens = static_cast<int32_t>(ids.size());
  finished.transport = "shm";
  finished.steps = 2;
  decode_.Send({finished});
  answer.AwaitEnd();
  ASSERT_TRUE(Eventually([&] { return telemetry->Recent().size() == 1; }));
  record = *telemetry->Recent()[0];
  EXPECT_EQ(record.state, "");
  EXPECT_TRUE(record.status.ok());
  EXPECT_EQ(record.finish_reason, "stop");
  EXPECT_EQ(record.cached_tokens, 4);
  EXPECT_EQ(record.prefill_chunks, 2);
  EXPECT_EQ(record.decode_steps, 2);
  EXPECT_EQ(record.output_tokens, static_cast<int32_t>(ids.size()));
  Duration last{};
  for (const Stage stage :
       {Stage::kTokenized, Stage::kPlaced, Stage::kPrefillStarted, Stage::kFirstChunk,
        Stage::kPrefillFinished, Stage::kFirstToken, Stage::kLastToken, Stage::kEnded}) {
    EXPECT_GE(record.stages.At(stage), last) << StageName(stage);
    last = record.stages.At(stage);
  }
  EXPECT_TRUE(record.stages.Has(Stage::kHandoffFinished));
}

TEST_F(DispatcherTest, RemembersHowARequestEndedThatDidNotFinish) {
  const auto telemetry = *Telemetry::Create({});
  DispatcherOptions options;
  options.telemetry = telemetry.get();
  options.max_migrations = 1;
  Start(options);
  Answer cancelled;
  dispatcher_->Cancel(Submit(Text("The capital of France is"), cancelled));
  ASSERT_THAT(telemetry->Recent(), SizeIs(1));
  EXPECT_EQ(telemetry->Recent()[0]->http_status, 499);
  EXPECT_EQ(telemetry->Recent()[0]->status.code(), absl::StatusCode::kCancelled);
  decode_.Await<DecodeCommand>();
  decode_.Await<CancelCommand>();

  Answer failed;
  Submit(Text("The capital of France is"), failed);
  for (int i = 0; i < 2; ++i) {
    decode_.SendFailed(decode_.Await<DecodeCommand>().attempt, absl::UnavailableError("broken"));
  }
  EXPECT_TRUE(failed.AwaitEnd().error);
  ASSERT_TRUE(Eventually([&] { return telemetry->Recent().size() == 2; }));
  const RequestRecord record = *telemetry->Recent()[0];
  EXPECT_EQ(record.http_status, 503);
  ASSERT_THAT(record.moves, SizeIs(1));
  EXPECT_EQ(record.moves[0].reason, MoveReason::kFailed);
  EXPECT_THAT(record.moves[0].why, HasSubstr("broken"));
  EXPECT_EQ(record.finish_reason, "");
  // What Submit refuses is for its caller to tell.
  Answer refused;
  EXPECT_FALSE(dispatcher_->Submit(Text(""), refused.Sink()).ok());
  EXPECT_THAT(telemetry->Recent(), SizeIs(2));
}

TEST_F(DispatcherTest, ShortPromptsArePrefilledByTheDecodeWorker) {
  DispatcherOptions options;
  options.local_prefill_tokens = 5;
  Start(options);
  Answer answer;
  Submit(Text("The capital of France is"), answer);
  EXPECT_FALSE(decode_.Await<DecodeCommand>().handoff);
  EXPECT_EQ(prefill_.queued(), 0u);
}

TEST_F(DispatcherTest, ChatIsRenderedByTheModelsTemplate) {
  Start();
  GenerateInput input;
  input.prompt = std::vector<text::ChatMessage>{{"user", "Hi <|im_end|>"}};
  Answer answer;
  Submit(input, answer);
  const std::string prompt = [&] {
    std::string text;
    for (const TokenId token : decode_.Await<DecodeCommand>().prompt) {
      text += DemoTokenizer().TokenText(token);
    }
    return text;
  }();
  EXPECT_THAT(prompt, HasSubstr("<|im_start|>user\nHi <|im_end|>"));
  EXPECT_TRUE(prompt.ends_with("<|im_start|>assistant\n")) << prompt;
}

TEST_F(DispatcherTest, RefusesWhatIsNotSoundWithTheNumbers) {
  Start();
  const auto refusal = [this](GenerateInput input) {
    return dispatcher_->Submit(std::move(input), Answer().Sink()).status();
  };
  EXPECT_THAT(refusal(Text("")).ToString(), HasSubstr("INVALID_ARGUMENT: the prompt is empty"));
  GenerateInput input;
  input.prompt = std::vector<TokenId>(1030, 5);
  EXPECT_THAT(refusal(input).ToString(),
              HasSubstr("prompt has 1030 tokens, but the context is 1024 tokens"));
  const absl::Status huge = refusal(Text(std::string(8 << 20, 'a')));
  EXPECT_TRUE(absl::IsInvalidArgument(huge));
  EXPECT_THAT(huge.ToString(), HasSubstr("prompt has 8388608 bytes, at least "));
  EXPECT_THAT(huge.ToString(), HasSubstr("but the context is 1024 tokens"));
  input.prompt = std::vector<TokenId>{1, 49152};
  EXPECT_THAT(refusal(input).ToString(),
              HasSubstr("token 1 of the prompt is 49152, but the vocabulary has ids 0 to 49151"));
  input = Text("a");
  input.has_max_tokens = true;
  input.sampling.max_tokens = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(input)));
  input = Text("a");
  input.model = "gpt-4";
  EXPECT_EQ(refusal(input).ToString(),
            "NOT_FOUND: there is no model 'gpt-4'; this router serves 'demo'");
  input.prompt = std::vector<text::ChatMessage>{};
  input.model = "demo";
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(input)));
  EXPECT_EQ(dispatcher_->running(), 0);
  EXPECT_EQ(decode_.queued(), 0u);
}

TEST_F(DispatcherTest, APromptThatNoPoolHoldsIsRefusedAtOnce) {
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.blocks_free = status.blocks_total = 10;
  decode_.SetStatus(status);
  Start();
  ASSERT_TRUE(Eventually([&] { return dispatcher_->Fleet().at(0).blocks_total == 10; }));
  GenerateInput input;
  input.prompt = std::vector<TokenId>(200, 5);
  EXPECT_THAT(
      dispatcher_->Submit(input, Answer().Sink()).status().ToString(),
      HasSubstr("prompt has 200 tokens, but the largest decode worker's KV cache holds 160"));
  EXPECT_EQ(dispatcher_->running(), 0);
}

TEST_F(DispatcherTest, CancelTellsBothWorkersAndTheSinkHearsNothing) {
  Start();
  Answer answer;
  const Dispatcher::Handle handle = Submit(Text("one two three"), answer);
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  prefill_.Await<PrefillCommand>();
  dispatcher_->Cancel(handle);
  EXPECT_EQ(decode_.Await<CancelCommand>().attempt, attempt);
  EXPECT_EQ(prefill_.Await<CancelCommand>().attempt, attempt);
  EXPECT_EQ(dispatcher_->running(), 0);
  decode_.SendTokens(attempt, 0, {1});
  dispatcher_->Cancel(handle);
  dispatcher_->Cancel(handle + 77);
  EXPECT_EQ(answer.Now().endings, 0);
}

TEST_F(DispatcherTest, ASinkMayCancelItsOwnRequest) {
  Start();
  Answer answer;
  std::atomic<Dispatcher::Handle> handle{0};
  auto submitted =
      dispatcher_->Submit(Text("one two three"), answer.Sink([&] { dispatcher_->Cancel(handle); }));
  ASSERT_TRUE(submitted.ok());
  handle = *submitted;
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  decode_.SendTokens(attempt, 0, {1});
  EXPECT_EQ(decode_.Await<CancelCommand>().attempt, attempt);
  EXPECT_TRUE(Eventually([&] { return dispatcher_->running() == 0; }));
  EXPECT_EQ(answer.Now().endings, 0);
}

TEST_F(DispatcherTest, AStopStringCancelsTheDecodeWorker) {
  Start();
  Answer answer;
  GenerateInput input = Text("Count:");
  input.stop = {", three"};
  Submit(input, answer);
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  const std::vector<TokenId> ids = DemoTokens(" one, two, three, four");
  for (size_t i = 0; i < ids.size(); ++i) {
    decode_.SendTokens(attempt, static_cast<int32_t>(i), {ids[i]});
  }
  const Collected all = answer.AwaitEnd();
  ASSERT_TRUE(all.finish) << all.Error();
  EXPECT_EQ(all.text, " one, two");
  EXPECT_EQ(all.finish->reason, FinishReason::kStop);
  EXPECT_EQ(decode_.Await<CancelCommand>().attempt, attempt);
}

TEST_F(DispatcherTest, TheDeadlineEndsARequest) {
  DispatcherOptions options;
  options.request_timeout = milliseconds(200);
  Start(options);
  Answer answer;
  Submit(Text("one two three"), answer);
  const auto decode = decode_.Await<DecodeCommand>();
  EXPECT_LE(decode.timeout, milliseconds(200));
  decode_.SendTokens(decode.attempt, 0, {1});
  const Collected all = answer.AwaitEnd();
  EXPECT_THAT(all.Error(), HasSubstr("DEADLINE_EXCEEDED: the request took longer than 0.2 s"));
  EXPECT_EQ(decode_.Await<CancelCommand>().attempt, decode.attempt);
}

TEST_F(DispatcherTest, AFullWorkerQueueIsResourceExhausted) {
  Start();
  decode_.RefuseCommands();
  Answer answer;
  Submit(Text("one two three"), answer);
  EXPECT_TRUE(absl::IsResourceExhausted(*answer.AwaitEnd().error));
  prefill_.Await<PrefillCommand>();
  prefill_.Await<CancelCommand>();
}

TEST_F(DispatcherTest, MoreThanMaxConcurrentIsResourceExhausted) {
  DispatcherOptions options;
  options.max_concurrent = 2;
  Start(options);
  Answer first, second;
  Submit(Text("one"), first);
  const Dispatcher::Handle handle = Submit(Text("two"), second);
  const absl::Status refused = dispatcher_->Submit(Text("three"), Answer().Sink()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_EQ(std::string(refused.message()), "the router has 2 requests, its limit is 2");
  dispatcher_->Cancel(handle);
  Answer third;
  Submit(Text("three"), third);
}

TEST_F(DispatcherTest, ADrainThatIsAnnouncedStillTakesRequests) {
  Start();
  EXPECT_TRUE(dispatcher_->Ready());
  dispatcher_->AnnounceDrain();
  EXPECT_FALSE(dispatcher_->Ready());
  Answer answer;
  Submit(Text("one two three"), answer);
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  decode_.SendTokens(attempt, 0, {1, 2, 3});
  decode_.SendFinished(attempt, 3);
  answer.AwaitEnd();
  EXPECT_TRUE(answer.Now().finish);
}

TEST_F(DispatcherTest, DrainWaitsForWhatRunsAndTakesNothingNew) {
  Start();
  Answer answer;
  Submit(Text("one two three"), answer);
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  EXPECT_TRUE(dispatcher_->Ready());
  EXPECT_FALSE(dispatcher_->Drain(milliseconds(20)));
  EXPECT_FALSE(dispatcher_->Ready());
  EXPECT_TRUE(absl::IsUnavailable(dispatcher_->Submit(Text("x"), Answer().Sink()).status()));
  decode_.SendTokens(attempt, 0, {1});
  decode_.SendFinished(attempt, 1);
  EXPECT_TRUE(dispatcher_->Drain(std::chrono::seconds(20)));
  EXPECT_TRUE(answer.Now().finish);
}

TEST_F(DispatcherTest, WhatRunsAtTheEndIsEndedWithAnError) {
  Start();
  Answer answer;
  Submit(Text("one two three"), answer);
  dispatcher_.reset();
  EXPECT_THAT(answer.Now().Error(), HasSubstr("UNAVAILABLE: the router is shutting down"));
}

TEST_F(DispatcherTest, TokenizesAndDetokenizes) {
  Start();
  EXPECT_EQ(*dispatcher_->Tokenize(Text("Hello world")), DemoTokens("Hello world"));
  EXPECT_EQ(*dispatcher_->Detokenize("demo", DemoTokens("Hello world")), "Hello world");
  EXPECT_TRUE(absl::IsNotFound(dispatcher_->Detokenize("other", {1}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(dispatcher_->Detokenize("demo", {-1}).status()));
  const std::vector<ModelInfo> models = dispatcher_->Models();
  ASSERT_THAT(models, SizeIs(1));
  EXPECT_EQ(models[0].name, "demo");
  EXPECT_EQ(models[0].context_tokens, 1024);
  EXPECT_EQ(models[0].vocab_size, 49152);
}

TEST_F(DispatcherTest, MetricsShowRequestsAndTheFleet) {
  Start();
  Answer answer;
  Submit(Text("one two three"), answer);
  EXPECT_THAT(dispatcher_->MetricsText(),
              HasSubstr("vllm:num_requests_running{model_name=\"demo\"} 1"));
  const Attempt attempt = decode_.Await<DecodeCommand>().attempt;
  decode_.SendTokens(attempt, 0, {1, 2, 3});
  decode_.SendFinished(attempt, 3);
  answer.AwaitEnd();
  const std::string text = dispatcher_->MetricsText();
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"demo\"} 3"));
  EXPECT_THAT(text, HasSubstr("baton_workers{role=\"decode\",state=\"ready\"} 1"));
}

}  // namespace
}  // namespace baton::router
