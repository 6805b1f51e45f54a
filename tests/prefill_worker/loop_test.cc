// A prefill worker on a thread, with a real router link and a real handoff service as its target.

#include "prefill_worker/loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "prefill_worker/worker.h"
#include "tests/prefill_worker/target.h"
#include "tests/worker_common/worker_testing.h"
#include "worker_common/first_token.h"

namespace baton::prefill_worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using worker_common::AttemptOf;
using worker_common::Outcome;
using worker_common::RunningWorker;
using worker_common::TestRouter;
using worker_common::TinyModel;
using worker_link::CancelCommand;
using worker_link::PrefillCommand;

constexpr int32_t kBlocks = Target::kBlocks;
constexpr int32_t kBlockTokens = Target::kBlockTokens;

class PrefillLoopTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new TinyModel(); }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  static TinyModel& model() { return *model_; }

  std::vector<TokenId> Prompt(size_t tokens, uint32_t seed) {
    return engine::RandomTokens(tokens, model().vocab(), seed);
  }

  // The prompt's KV in the target's slab, compared with the engine's own.
  void ExpectSameKv(const std::vector<TokenId>& prompt, Target& target) {
    engine::Executor& executor = model().engine().executor();
    auto sequence = executor.NewSequence(prompt, engine::GreedyTokens(1), "");
    ASSERT_TRUE(sequence.ok());
    ASSERT_TRUE(executor.Reserve(&*sequence, sequence->pending()).ok());
    const engine::StepRange range{.sequence = &*sequence, .tokens = sequence->pending()};
    executor.Step({&range, 1});
    const auto block_bytes = static_cast<size_t>(executor.pool().layout().block_bytes());
    for (size_t i = 0; i < prompt.size() / kBlockTokens; ++i) {
      const auto mine = static_cast<size_t>(sequence->blocks.blocks()[i]);
      const auto right = model().engine().slab().subspan(mine * block_bytes, block_bytes);
      const auto moved = target.service().slab().subspan(i * block_bytes, block_bytes);
      ASSERT_TRUE(std::equal(right.begin(), right.end(), moved.begin())) << "block " << i;
    }
  }

  static TinyModel* model_;
};
TinyModel* PrefillLoopTest::model_ = nullptr;

TEST_F(PrefillLoopTest, HandsOverTheKvAndTheFirstToken) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  EXPECT_EQ(router.info().role, worker_link::Role::kPrefill);
  const std::vector<TokenId> prompt = Prompt(150, 1);
  const std::vector<OutputToken> right = model().Answer(prompt, engine::GreedyTokens(1));
  for (uint64_t round = 0; round < 2; ++round) {
    router.Send(CommandFor(AttemptOf(round), prompt, target));
    const auto offer = target.Next<kv_transfer::OfferArrived>().offer;
    EXPECT_EQ(offer.tokens, 150);
    EXPECT_EQ(offer.block_hashes.size(), 9u);
    EXPECT_EQ(offer.source_name, "prefill-0");
    target.GrantAll(offer);
    const auto done = target.Next<kv_transfer::TargetDone>();
    ASSERT_TRUE(done.status.ok()) << done.status;
    const auto first = worker_common::DecodeFirstToken(done.commit_payload, model().vocab());
    ASSERT_TRUE(first.ok()) << first.status();
    engine::ExpectSame({*first}, right);
    ExpectSameKv(prompt, target);

    const Outcome outcome = router.Wait(AttemptOf(round));
    engine::ExpectSame(outcome.tokens, right);
    ASSERT_TRUE(outcome.prefilled);
    EXPECT_EQ(outcome.prefill->cached_prompt_tokens, round == 0 ? 0 : 144);
    EXPECT_EQ(outcome.prefill->chunks, round == 0 ? 5 : 1) << "of 32 tokens";
    EXPECT_GE(outcome.prefill->queue, Duration{});
    EXPECT_GT(outcome.prefill->first_chunk, Duration{});
    EXPECT_GE(outcome.prefill->compute, outcome.prefill->first_chunk);
    router.ExpectIdle();
  }
  EXPECT_EQ(worker->counters().handoffs, 2);
  EXPECT_EQ(worker->counters().prompt_tokens, 150 + 6);
  EXPECT_EQ(worker->counters().cached_tokens, 144);
}

// Checksums outlive the transfer they were computed for. Prompts that share prefixes come and go in
// a pool that holds few of them, so that blocks are handed over again, evicted, taken for something
// else, and computed anew in chunks of other sizes: one stale checksum fails a handoff.
TEST_F(PrefillLoopTest, BlocksThatComeAndGoAreNeverAnnouncedWithAnOlderChecksum) {
  Target target(model());
  auto options = model().Options("prefill-0", 12);
  options.chunk_tokens = 48;
  RunningWorker<PrefillWorker> worker(options);
  TestRouter router(worker->address());
  const uint64_t seed = RandomU64();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  int64_t cached_tokens = 0;
  for (uint64_t number = 1; number <= 60; ++number) {
    std::vector<TokenId> prompt = Prompt(170, static_cast<uint32_t>(random() % 3));
    prompt.resize(1 + random() % prompt.size());
    router.Send(CommandFor(AttemptOf(number), prompt, target));
    target.GrantAll(target.Next<kv_transfer::OfferArrived>().offer);
    const auto done = target.Next<kv_transfer::TargetDone>();
    ASSERT_TRUE(done.status.ok()) << done.status;
    const Outcome outcome = router.Wait(AttemptOf(number));
    ASSERT_TRUE(outcome.prefilled);
    cached_tokens += outcome.prefill->cached_prompt_tokens;
    ExpectSameKv(prompt, target);
  }
  EXPECT_GT(cached_tokens, 0);
  EXPECT_EQ(worker->counters().handoffs, 60);
  router.ExpectIdle();
}

TEST_F(PrefillLoopTest, OffersBeforeItHasComputed) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  router.Send(CommandFor(AttemptOf(1), Prompt(200, 1), target));
  target.Next<kv_transfer::OfferArrived>();
  // Nothing was granted: the prompt is computed all the same, and its blocks are held.
  router.WaitForTokens(AttemptOf(1), 1);
  router.WaitForStatus("held", [](const auto& s) { return s.blocks_held == 13; });
  router.Send(CancelCommand{AttemptOf(1)});
  EXPECT_EQ(router.Wait(AttemptOf(1)).failed->code(), absl::StatusCode::kCancelled);
  router.ExpectIdle();
}

TEST_F(PrefillLoopTest, ARefusalEndsTheAttemptWithItsReason) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  router.Send(CommandFor(AttemptOf(1), Prompt(100, 1), target));
  target.service().Refuse(target.Next<kv_transfer::OfferArrived>().offer.attempt,
                          absl::UnavailableError("the target drains"));
  const Outcome outcome = router.Wait(AttemptOf(1));
  ASSERT_TRUE(outcome.failed);
  EXPECT_NE(outcome.failed->ToString().find("the target drains"), std::string::npos)
      << *outcome.failed;
  router.ExpectIdle();
  EXPECT_EQ(worker->counters().handoffs_failed, 1);
}

TEST_F(PrefillLoopTest, WaitsForBlocksInOrderAndCanBeCancelledThere) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", 5));
  TestRouter router(worker->address());
  router.Send(CommandFor(AttemptOf(1), Prompt(60, 1), target));  // 4 blocks
  const auto first = target.Next<kv_transfer::OfferArrived>().offer;
  router.Send(CommandFor(AttemptOf(2), Prompt(60, 2), target));
  router.Send(CommandFor(AttemptOf(3), Prompt(16, 3), target));  // would fit, but is not next
  router.WaitForStatus("two wait", [](const auto& s) { return s.waiting == 2; });
  router.Send(CancelCommand{AttemptOf(2)});
  EXPECT_EQ(router.Wait(AttemptOf(2)).failed->code(), absl::StatusCode::kCancelled);
  const auto third = target.Next<kv_transfer::OfferArrived>().offer;
  EXPECT_EQ(third.attempt, AttemptOf(3));
  target.GrantAll(first);
  EXPECT_TRUE(target.Next<kv_transfer::TargetDone>().status.ok());
  EXPECT_TRUE(router.Wait(AttemptOf(1)).prefilled);
  target.GrantAll(third);
  EXPECT_TRUE(target.Next<kv_transfer::TargetDone>().status.ok());
  EXPECT_TRUE(router.Wait(AttemptOf(3)).prefilled);
  router.ExpectIdle();
}

TEST_F(PrefillLoopTest, ADeadlineEndsTheAttemptAndFreesItsBlocks) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  PrefillCommand command = CommandFor(AttemptOf(1), Prompt(100, 1), target);
  command.timeout = milliseconds(100);
  router.Send(command);
  EXPECT_EQ(router.Wait(AttemptOf(1)).failed->code(), absl::StatusCode::kDeadlineExceeded);
  router.ExpectIdle();
}

TEST_F(PrefillLoopTest, ANewerEpochReplacesTheOlder) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  const std::vector<TokenId> prompt = Prompt(40, 1);
  router.Send(CommandFor(AttemptOf(1, 4), prompt, target));
  EXPECT_EQ(target.Next<kv_transfer::OfferArrived>().offer.attempt.epoch, 4u);
  router.Send(CommandFor(AttemptOf(1, 5), prompt, target));
  EXPECT_EQ(router.Wait(AttemptOf(1, 4)).failed->code(), absl::StatusCode::kCancelled);
  const auto offer = target.Next<kv_transfer::OfferArrived>().offer;
  EXPECT_EQ(offer.attempt.epoch, 5u);
  router.Send(CommandFor(AttemptOf(1, 3), prompt, target));
  EXPECT_EQ(router.Wait(AttemptOf(1, 3)).failed->code(), absl::StatusCode::kFailedPrecondition);
  target.GrantAll(offer);
  EXPECT_TRUE(router.Wait(AttemptOf(1, 5)).prefilled);
  router.ExpectIdle();
}

TEST_F(PrefillLoopTest, ALostRouterTakesItsAttemptsWithIt) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  {
    TestRouter router(worker->address());
    router.Send(CommandFor(AttemptOf(1), Prompt(100, 1), target));
    target.Next<kv_transfer::OfferArrived>();
  }
  TestRouter next(worker->address());
  next.ExpectIdle();
}

TEST_F(PrefillLoopTest, RefusesWhatItCannotDo) {
  Target target(model());
  auto options = model().Options("prefill-0", 4);
  RunningWorker<PrefillWorker> worker(options);
  TestRouter router(worker->address());
  const auto code_of = [&](worker_link::Command command) {
    const Attempt attempt = *worker_link::AttemptOf(command);
    router.Send(std::move(command));
    return router.Wait(attempt).failed.value_or(absl::OkStatus()).code();
  };
  EXPECT_EQ(code_of(CommandFor(AttemptOf(1), {1, model().vocab()}, target)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(CommandFor(AttemptOf(2), Prompt(256, 1), target)),
            absl::StatusCode::kInvalidArgument)
      << "the context is 256";
  EXPECT_EQ(code_of(CommandFor(AttemptOf(3), Prompt(65, 1), target)),
            absl::StatusCode::kResourceExhausted)
      << "5 blocks of 4";
  PrefillCommand nowhere = CommandFor(AttemptOf(4), Prompt(8, 1), target);
  nowhere.target_address = "nowhere";
  EXPECT_EQ(code_of(nowhere), absl::StatusCode::kInvalidArgument);
  worker_link::DecodeCommand decode;
  decode.attempt = AttemptOf(5);
  decode.prompt = {1};
  decode.timeout = seconds(5);
  EXPECT_EQ(code_of(decode), absl::StatusCode::kUnavailable);
  PrefillCommand late = CommandFor(AttemptOf(6), Prompt(8, 1), target);
  late.timeout = Duration(0);
  EXPECT_EQ(code_of(late), absl::StatusCode::kDeadlineExceeded);
  router.ExpectIdle();
}

worker_link::ServePrefixCommand Serve(const PrefillCommand& command,
                                      const worker_link::WorkerInfo& target) {
  return {.attempt = command.attempt,
          .prompt = command.prompt,
          .cache_salt = command.cache_salt,
          .target_address = target.handoff_address,
          .target_name = target.name,
          .timeout = seconds(60)};
}

// Prefill workers 0 and 1; 0 has the KV of the prompt's first 128 tokens.
struct Pair {
  Pair(const worker_common::WorkerOptions& first, const worker_common::WorkerOptions& second)
      : donor(first), fetcher(second), to_donor(donor->address()), to_fetcher(fetcher->address()) {}
  void ExpectIdle() {
    to_donor.ExpectIdle();
    to_fetcher.ExpectIdle();
  }
  RunningWorker<PrefillWorker> donor, fetcher;
  TestRouter to_donor, to_fetcher;
};

TEST_F(PrefillLoopTest, FetchesAPrefixThatAnotherWorkerHas) {
  Target target(model());
  Pair pair(model().Options("prefill-0", kBlocks), model().Options("prefill-1", kBlocks));
  std::vector<TokenId> prompt = Prompt(130, 1);
  const auto hand_over = [&](TestRouter& router, const Attempt& attempt) {
    const auto offer = target.Next<kv_transfer::OfferArrived>().offer;
    EXPECT_EQ(offer.attempt, attempt);
    target.GrantAll(offer);
    EXPECT_TRUE(target.Next<kv_transfer::TargetDone>().status.ok());
    return router.Wait(attempt);
  };
  pair.to_donor.Send(CommandFor(AttemptOf(1), prompt, target));
  hand_over(pair.to_donor, AttemptOf(1));

  const std::vector<TokenId> more = Prompt(60, 2);
  prompt.insert(prompt.end(), more.begin(), more.end());
  const std::vector<OutputToken> right = model().Answer(prompt, engine::GreedyTokens(1));
  // Whichever of the two commands comes first.
  for (const uint64_t number : {2, 3}) {
    // Otherwise the second time it would be cached: another tenant's, computed by the donor first.
    PrefillCommand command = CommandFor(AttemptOf(number), prompt, target);
    command.prefix_tokens = 128;
    if (number == 2) {
      pair.to_fetcher.Send(command);
      pair.to_fetcher.WaitForStatus("awaiting", [](const auto& s) { return s.blocks_held == 12; });
      pair.to_donor.Send(Serve(command, pair.to_fetcher.info()));
    } else {
      command.cache_salt = "tenant";
      PrefillCommand first = command;
      first.attempt = AttemptOf(100);
      first.prefix_tokens = 0;
      pair.to_donor.Send(first);
      hand_over(pair.to_donor, first.attempt);
      pair.to_donor.Send(Serve(command, pair.to_fetcher.info()));
      pair.to_fetcher.WaitForStatus("offered", [](const auto& s) { return s.transfers == 1; });
      pair.to_fetcher.Send(command);
    }
    const Outcome outcome = hand_over(pair.to_fetcher, command.attempt);
    engine::ExpectSame(outcome.tokens, right);
    ASSERT_TRUE(outcome.prefilled);
    EXPECT_EQ(outcome.prefill->cached_prompt_tokens, number == 2 ? 128 : 176);
    if (number == 2) ExpectSameKv(prompt, target);
    EXPECT_TRUE(pair.to_donor.Wait(command.attempt).prefilled) << "its part is over";
  }
  pair.ExpectIdle();
  EXPECT_EQ(pair.donor->counters().prefixes_served, 2);
  const PrefillCounters counters = pair.fetcher->counters();
  EXPECT_EQ(counters.prefixes_fetched, 2);
  EXPECT_EQ(counters.prefix_tokens_fetched, 128 + 176);
  const int64_t token_bytes = pair.to_fetcher.info().kv_bytes_per_token;
  EXPECT_EQ(counters.prefix_bytes_fetched, (128 + 176) * token_bytes);
  EXPECT_EQ(counters.prefixes_not_offered + counters.prefixes_refused + counters.prefixes_failed,
            0);
  EXPECT_EQ(pair.fetcher->counters().prompt_tokens, 190 - 128 + 190 - 176);
  pair.to_fetcher.WaitForStatus(
      "measured", [](const auto& s) { return s.kv_bytes_per_s > 0 && s.prefill_tokens_per_s > 0; });
}

TEST_F(PrefillLoopTest, APrefixThatDoesNotComeCostsTimeNotTheAnswer) {
  Target target(model());
  Pair pair(model().Options("prefill-0", kBlocks), model().Options("prefill-1", kBlocks));
  uint64_t number = 0;
  const auto next = [&] {
    ++number;
    PrefillCommand command =
        CommandFor(AttemptOf(number), Prompt(100, static_cast<uint32_t>(number)), target);
    command.prefix_tokens = 64;
    return command;
  };
  const auto expect_answer = [&](const PrefillCommand& command) {
    const auto offer = target.Next<kv_transfer::OfferArrived>().offer;
    target.GrantAll(offer);
    EXPECT_TRUE(target.Next<kv_transfer::TargetDone>().status.ok());
    const Outcome outcome = pair.to_fetcher.Wait(command.attempt);
    engine::ExpectSame(outcome.tokens, model().Answer(command.prompt, engine::GreedyTokens(1)));
    EXPECT_EQ(outcome.prefill->cached_prompt_tokens, 0);
  };
  {
    SCOPED_TRACE("the donor has nothing, and the router says so");
    const PrefillCommand command = next();
    pair.to_fetcher.Send(command);
    pair.to_donor.Send(Serve(command, pair.to_fetcher.info()));
    EXPECT_EQ(pair.to_donor.Wait(command.attempt).failed->code(), absl::StatusCode::kNotFound);
    pair.to_fetcher.Send(worker_link::NoOfferCommand{command.attempt});
    expect_answer(command);
  }
  {
    SCOPED_TRACE("nobody offers");
    const PrefillCommand command = next();
    pair.to_fetcher.Send(command);
    expect_answer(command);
  }
  Target source(model());
  const auto offer_kv = [&](Target& from, const PrefillCommand& command,
                            std::vector<TokenId> prompt) {
    kv_transfer::OfferInfo offer;
    offer.attempt = command.attempt;
    offer.tokens = 64;
    prompt.resize(64);
    offer.block_hashes = ChainFullBlocks(model().engine().executor().ChainRootFor(""), prompt, 16);
    offer.source_name = "source";
    const absl::Status offered =
        from.service().Offer(offer, pair.to_fetcher.info().handoff_address, {0, 1, 2, 3});
    EXPECT_TRUE(offered.ok()) << offered;
  };
  {
    SCOPED_TRACE("the source dies");
    const PrefillCommand command = next();
    offer_kv(source, command, command.prompt);
    pair.to_fetcher.Send(command);
    pair.to_fetcher.WaitForStatus("granted", [](const auto& s) { return s.blocks_held == 7; });
    source.service().BlocksReady(command.attempt, 2);
    source.service().CancelSource(command.attempt, absl::UnavailableError("the source dies"));
    expect_answer(command);
  }
  {
    SCOPED_TRACE("a block is not what was announced");
    Target wrong(model(), /*checksums=*/false);
    const PrefillCommand command = next();
    offer_kv(wrong, command, command.prompt);
    pair.to_fetcher.Send(command);
    wrong.service().Commit(command.attempt, "");
    expect_answer(command);
  }
  {
    SCOPED_TRACE("KV of another prompt");
    const PrefillCommand command = next();
    offer_kv(source, command, Prompt(64, 99));
    pair.to_fetcher.Send(command);
    expect_answer(command);
  }
  {
    SCOPED_TRACE("cancelled while it fetches");
    const PrefillCommand command = next();
    offer_kv(source, command, command.prompt);
    pair.to_fetcher.Send(command);
    pair.to_fetcher.WaitForStatus("granted", [](const auto& s) { return s.blocks_held == 7; });
    pair.to_fetcher.Send(CancelCommand{command.attempt});
    EXPECT_EQ(pair.to_fetcher.Wait(command.attempt).failed->code(), absl::StatusCode::kCancelled);
  }
  {
    SCOPED_TRACE("cancelled while it waits");
    const PrefillCommand command = next();
    pair.to_fetcher.Send(command);
    pair.to_fetcher.WaitForStatus("awaiting", [](const auto& s) { return s.blocks_held == 7; });
    pair.to_fetcher.Send(CancelCommand{command.attempt});
    EXPECT_EQ(pair.to_fetcher.Wait(command.attempt).failed->code(), absl::StatusCode::kCancelled);
  }
  pair.ExpectIdle();
  const PrefillCounters counters = pair.fetcher->counters();
  EXPECT_EQ(counters.prefixes_not_offered, 2);
  EXPECT_EQ(counters.prefixes_refused, 1);
  EXPECT_EQ(counters.prefixes_failed, 2);
  EXPECT_EQ(counters.checksum_mismatches, 1);
  EXPECT_EQ(counters.prefixes_fetched, 0);
  pair.to_fetcher.WaitForStatus("the same in the status", [](const auto& s) {
    return s.kv == worker_link::KvCounters{.checksum_mismatches = 1,
                                           .prefixes_not_offered = 2,
                                           .prefixes_refused = 1,
                                           .prefixes_failed = 2};
  });
}

TEST_F(PrefillLoopTest, HoldsNoMoreRequestsThanItsQueueTakes) {
  Target target(model());
  auto options = model().Options("prefill-0", kBlocks);
  options.queue_capacity = 2;
  RunningWorker<PrefillWorker> worker(options);
  TestRouter router(worker->address());
  for (uint64_t i = 1; i <= 2; ++i) {
    router.Send(CommandFor(AttemptOf(i), Prompt(20, 1), target));
    target.Next<kv_transfer::OfferArrived>();
  }
  router.Send(CommandFor(AttemptOf(3), Prompt(20, 1), target));
  EXPECT_EQ(router.Wait(AttemptOf(3)).failed->code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(PrefillLoopTest, DrainsWhatItHasAccepted) {
  Target target(model());
  RunningWorker<PrefillWorker> worker(model().Options("prefill-0", kBlocks));
  TestRouter router(worker->address());
  router.Send(CommandFor(AttemptOf(1), Prompt(100, 1), target));
  const auto offer = target.Next<kv_transfer::OfferArrived>().offer;
  worker->Drain();
  router.WaitForStatus("draining", [](const auto& s) { return s.draining; });
  router.Send(CommandFor(AttemptOf(2), Prompt(100, 1), target));
  EXPECT_EQ(router.Wait(AttemptOf(2)).failed->code(), absl::StatusCode::kUnavailable);
  target.GrantAll(offer);
  EXPECT_TRUE(router.Wait(AttemptOf(1)).prefilled);
  worker.Join();
}

}  // namespace
}  // namespace baton::prefill_worker
