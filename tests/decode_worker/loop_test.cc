// A decode worker on its own, which prefills the prompts itself.

#include "decode_worker/loop.h"

#include <gtest/gtest.h>

#include "decode_worker/worker.h"
#include "tests/decode_worker/decode_testing.h"

namespace baton::decode_worker {
namespace {

using engine::GreedyTokens;
using std::chrono::milliseconds;
using std::chrono::seconds;

using DecodeLoopTest = DecodeTest;

TEST_F(DecodeLoopTest, AnswersAsTheEngineAlone) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 64));
  TestRouter router(worker->address());
  EXPECT_EQ(router.info().role, worker_link::Role::kDecode);
  std::vector<DecodeCommand> commands;
  for (const size_t tokens : {1, 15, 16, 17, 33, 100, 200}) {
    const auto seed = static_cast<uint32_t>(tokens);
    const SamplingParams sampling = tokens % 2 == 0 ? GreedyTokens(20) : SeededTokens(20, seed);
    commands.push_back(Command(AttemptOf(tokens), Prompt(tokens, seed), sampling));
    router.Send(commands.back());
  }
  for (const DecodeCommand& command : commands) ExpectRightAnswer(router, command);
  router.ExpectIdle();
  EXPECT_EQ(worker->counters().output_tokens, 7 * 20);
  EXPECT_EQ(worker->counters().prefill_fallbacks, 0);
}

TEST_F(DecodeLoopTest, EndsWhereTheRequestOrTheContextEnds) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 64));
  TestRouter router(worker->address());
  const std::vector<TokenId> prompt = Prompt(250, 1);
  router.Send(Command(AttemptOf(1), prompt, GreedyTokens(99)));
  const Outcome full = router.Wait(AttemptOf(1));
  ASSERT_TRUE(full.finished);
  EXPECT_EQ(full.finished->reason, FinishReason::kLength);
  EXPECT_EQ(full.tokens.size(), 6u) << "the context is 256";
  EXPECT_EQ(full.finished->steps, 6);
  EXPECT_EQ(full.finished->preemptions, 0);
  ASSERT_TRUE(full.prefill) << "it was prefilled here";
  EXPECT_EQ(full.prefill->chunks, 8) << "of 32 tokens";
  EXPECT_GT(full.prefill->first_chunk, Duration{});
  EXPECT_GT(full.prefill->compute, full.prefill->first_chunk);

  SamplingParams stopping = GreedyTokens(99);
  stopping.stop_token_ids = {full.tokens[2].token};
  DecodeCommand command = Command(AttemptOf(2), prompt, stopping);
  router.Send(command);
  ExpectRightAnswer(router, command);
  EXPECT_EQ(router.Wait(AttemptOf(2)).finished->reason, FinishReason::kStop);
  EXPECT_GT(router.Wait(AttemptOf(2)).finished->cached_prompt_tokens, 0);
  router.Send(Command(AttemptOf(3), prompt, GreedyTokens(1)));
  EXPECT_EQ(router.Wait(AttemptOf(3)).tokens.size(), 1u);
  router.ExpectIdle();
}

TEST_F(DecodeLoopTest, MoreSequencesThanABatchTakeTurns) {
  auto options = model().Options("decode-0", 64);
  options.max_batch = 2;
  RunningWorker<DecodeWorker> worker(options);
  TestRouter router(worker->address());
  std::vector<DecodeCommand> commands;
  for (uint64_t i = 1; i <= 7; ++i) {
    commands.push_back(
        Command(AttemptOf(i), Prompt(10 * i, static_cast<uint32_t>(i)), SeededTokens(30, i)));
    router.Send(commands.back());
  }
  for (const DecodeCommand& command : commands) ExpectRightAnswer(router, command);
  router.ExpectIdle();
}

// 6 sequences of 11 blocks each at their end, and 14 blocks: no two can end side by side.
TEST_F(DecodeLoopTest, APreemptedSequenceGoesOnAsIfNothingHadHappened) {
  for (const bool prefix_cache : {false, true}) {
    auto options = model().Options("decode-0", 14);
    options.prefix_cache = prefix_cache;
    RunningWorker<DecodeWorker> worker(options);
    TestRouter router(worker->address());
    std::vector<DecodeCommand> commands;
    for (uint64_t i = 1; i <= 6; ++i) {
      commands.push_back(Command(AttemptOf(i), Prompt(20, static_cast<uint32_t>(i)),
                                 i % 2 == 0 ? GreedyTokens(150) : SeededTokens(150, i)));
      router.Send(commands.back());
    }
    for (const DecodeCommand& command : commands) ExpectRightAnswer(router, command);
    router.ExpectIdle();
    EXPECT_GT(worker->counters().preemptions, 0);
  }
}

TEST_F(DecodeLoopTest, WhatCanNeverFitIsRefusedWithItsNumbers) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 4));
  TestRouter router(worker->address());
  router.Send(Command(AttemptOf(1), Prompt(64, 1), GreedyTokens(5)));
  const Outcome prompt = router.Wait(AttemptOf(1));
  ASSERT_TRUE(prompt.failed);
  EXPECT_EQ(prompt.failed->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(
      prompt.failed->ToString().find("needs 5 KV blocks for the next one, worker decode-0 has 4"),
      std::string::npos)
      << *prompt.failed;
  // One that outgrows the pool has given its tokens up to there.
  router.Send(Command(AttemptOf(2), Prompt(50, 1), GreedyTokens(99)));
  const Outcome grown = router.Wait(AttemptOf(2));
  ASSERT_TRUE(grown.failed);
  EXPECT_EQ(grown.failed->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(grown.tokens.size(), 15u) << "the KV of 64 tokens fits, and the 65th token is sampled";
  router.ExpectIdle();
}

TEST_F(DecodeLoopTest, ACancelledRequestGivesItsBlocksBack) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 8));
  TestRouter router(worker->address());
  SamplingParams endless = GreedyTokens(100);
  router.Send(Command(AttemptOf(1), Prompt(20, 1), endless));
  router.WaitForTokens(AttemptOf(1), 3);
  router.Send(Command(AttemptOf(2), Prompt(100, 2), endless));  // in line: 7 blocks
  router.Send(CancelCommand{AttemptOf(2)});
  EXPECT_EQ(router.Wait(AttemptOf(2)).failed->code(), absl::StatusCode::kCancelled);
  router.Send(CancelCommand{AttemptOf(9)});  // of nothing
  router.Send(CancelCommand{AttemptOf(1)});
  const Outcome outcome = router.Wait(AttemptOf(1));
  EXPECT_TRUE(outcome.failed || outcome.finished);
  router.ExpectIdle();
}

TEST_F(DecodeLoopTest, ADeadlineALostRouterAndANewerEpochEndRequests) {
  auto options = model().Options("decode-0", 64);
  options.offer_wait = kGenerous;
  RunningWorker<DecodeWorker> worker(options);
  TestRouter router(worker->address());
  DecodeCommand waits = Command(AttemptOf(1), Prompt(20, 1), GreedyTokens(5));
  waits.handoff = true;
  waits.timeout = milliseconds(100);
  router.Send(waits);
  EXPECT_EQ(router.Wait(AttemptOf(1)).failed->code(), absl::StatusCode::kDeadlineExceeded);

  waits.timeout = seconds(60);
  waits.attempt = AttemptOf(2, 0);
  router.Send(waits);
  DecodeCommand newer = Command(AttemptOf(2, 1), Prompt(20, 1), GreedyTokens(5));
  router.Send(newer);
  EXPECT_EQ(router.Wait(AttemptOf(2, 0)).failed->code(), absl::StatusCode::kCancelled);
  ExpectRightAnswer(router, newer);
  {
    TestRouter other(worker->address());
    waits.attempt = AttemptOf(3);
    other.Send(waits);
    router.WaitForStatus("the other's request", [](const auto& s) { return s.waiting == 1; });
  }
  router.ExpectIdle();
}

TEST_F(DecodeLoopTest, DrainsWhatItHasAccepted) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 64));
  TestRouter router(worker->address());
  const DecodeCommand accepted = Command(AttemptOf(1), Prompt(20, 1), GreedyTokens(200));
  router.Send(accepted);
  router.WaitForTokens(AttemptOf(1), 1);
  worker->Drain();
  router.WaitForStatus("draining", [](const auto& s) { return s.draining; });
  router.Send(Command(AttemptOf(2), Prompt(20, 1), GreedyTokens(5)));
  ExpectRightAnswer(router, accepted);
  worker.Join();
}

TEST_F(DecodeLoopTest, RefusesWhatItCannotDo) {
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 64));
  TestRouter router(worker->address());
  router.Send(Command(AttemptOf(1), {1, model().vocab()}, GreedyTokens(5)));
  EXPECT_EQ(router.Wait(AttemptOf(1)).failed->code(), absl::StatusCode::kInvalidArgument);
  worker_link::PrefillCommand prefill;
  prefill.attempt = AttemptOf(2);
  prefill.prompt = {1};
  prefill.timeout = seconds(5);
  router.Send(prefill);
  EXPECT_EQ(router.Wait(AttemptOf(2)).failed->code(), absl::StatusCode::kUnavailable)
      << "another worker may do it";
}

}  // namespace
}  // namespace baton::decode_worker
