// A prefill worker whose pool is too small for what it is asked, with a disk cache behind it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <thread>

#include "kv_disk/disk_tier.h"
#include "prefill_worker/loop.h"
#include "prefill_worker/worker.h"
#include "tests/common/temp_dir.h"
#include "tests/prefill_worker/target.h"
#include "tests/worker_common/worker_testing.h"

namespace baton::prefill_worker {
namespace {

using std::chrono::seconds;
using worker_common::AttemptOf;
using worker_common::Outcome;
using worker_common::RunningWorker;
using worker_common::TestRouter;
using worker_common::TinyModel;
using worker_common::WorkerOptions;
using worker_link::PrefillCommand;

constexpr int32_t kSmallPool = 14;  // one prompt and a little more

class PrefillDiskTest : public testing::Test {
 protected:
  WorkerOptions Options(const std::string& name = "prefill-0", int32_t blocks = kSmallPool) {
    WorkerOptions options = model_.Options(name, blocks);
    options.disk_directory = directory_.File("");
    options.disk_bytes = int64_t{1} << 20;
    return options;
  }
  PrefillCommand Command(const std::vector<TokenId>& prompt) {
    return CommandFor(AttemptOf(++attempts_), prompt, target_);
  }
  std::vector<TokenId> Prompt(size_t tokens, uint32_t seed) {
    return engine::RandomTokens(tokens, model_.vocab(), seed);
  }
  // Grants the prompt's KV, and compares its first token with that of one process.
  Outcome TakeAnswer(TestRouter& router, const PrefillCommand& command) {
    const auto offer = target_.Next<kv_transfer::OfferArrived>().offer;
    EXPECT_EQ(offer.attempt, command.attempt);
    target_.GrantAll(offer);
    EXPECT_TRUE(target_.Next<kv_transfer::TargetDone>().status.ok());
    const Outcome outcome = router.Wait(command.attempt);
    engine::ExpectSame(outcome.tokens, model_.Answer(command.prompt, engine::GreedyTokens(1)));
    return outcome;
  }
  // How many of the prompt's tokens were not computed.
  int32_t Cached(TestRouter& router, const PrefillCommand& command) {
    router.Send(command);
    const Outcome outcome = TakeAnswer(router, command);
    return outcome.prefill ? outcome.prefill->cached_prompt_tokens : -1;
  }
  int32_t Cached(TestRouter& router, const std::vector<TokenId>& prompt) {
    return Cached(router, Command(prompt));
  }
  static void WaitForWritten(TestRouter& router, int64_t blocks) {
    router.WaitForStatus("written", [&](const auto& s) { return s.disk.blocks_written >= blocks; });
  }

  TinyModel model_;
  test::TempDir directory_;
  Target target_{model_};
  uint64_t attempts_ = 0;
};

TEST_F(PrefillDiskTest, GoesOnWithWhatThePoolHasForgotten) {
  RunningWorker<PrefillWorker> worker(Options());
  TestRouter router(worker->address());
  const auto a = Prompt(150, 1), b = Prompt(200, 2);
  EXPECT_EQ(Cached(router, a), 0);
  EXPECT_EQ(Cached(router, b), 0);
  WaitForWritten(router, 9 + 12);
  EXPECT_EQ(Cached(router, a), 144) << "the pool has kept two blocks at most";
  EXPECT_EQ(Cached(router, b), 192);
  // A longer prompt that begins in the same way.
  auto longer = a;
  const auto more = Prompt(40, 3);
  longer.insert(longer.end(), more.begin(), more.end());
  EXPECT_EQ(Cached(router, longer), 144);
  router.ExpectIdle();
  EXPECT_GE(worker->counters().disk_tokens, 144 + 192 - 2 * 32);
  EXPECT_EQ(worker->counters().disk_reads_late, 0);
  router.WaitForStatus("counted", [](const auto& s) {
    return s.disk.on && s.disk.blocks_read > 0 && s.disk.blocks_hit >= s.disk.blocks_read &&
           s.disk.blocks_missed > 0 && s.disk.blocks_total > s.disk.blocks;
  });
}

TEST_F(PrefillDiskTest, GoesOnAfterARestart) {
  const auto prompt = Prompt(150, 1);
  {
    RunningWorker<PrefillWorker> worker(Options());
    TestRouter router(worker->address());
    EXPECT_EQ(Cached(router, prompt), 0);
  }
  RunningWorker<PrefillWorker> worker(Options());
  TestRouter router(worker->address());
  EXPECT_EQ(Cached(router, prompt), 144);
  EXPECT_EQ(worker->counters().disk_tokens, 144);
  EXPECT_EQ(worker->counters().prompt_tokens, 6);
  router.ExpectIdle();
}

TEST_F(PrefillDiskTest, ATenantsBlocksAreItsOwn) {
  RunningWorker<PrefillWorker> worker(Options());
  TestRouter router(worker->address());
  const auto prompt = Prompt(150, 1);
  EXPECT_EQ(Cached(router, prompt), 0);
  EXPECT_EQ(Cached(router, Prompt(200, 2)), 0);
  PrefillCommand other = Command(prompt);
  other.cache_salt = "tenant";
  EXPECT_EQ(Cached(router, other), 0);
}

TEST_F(PrefillDiskTest, DamagedBlocksAreComputedAgain) {
  const auto prompt = Prompt(150, 1);
  {
    RunningWorker<PrefillWorker> worker(Options());
    TestRouter router(worker->address());
    EXPECT_EQ(Cached(router, prompt), 0);
  }
  {
    // Slots of two pages each, behind a header and two pages of table.
    std::fstream stream(directory_.File("prefill-0.kvcache"),
                        std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(3 * 4096 + 4 * 8192 + 1000);
    stream.write("damage", 6);
    ASSERT_TRUE(stream.good());
  }
  RunningWorker<PrefillWorker> worker(Options());
  TestRouter router(worker->address());
  EXPECT_EQ(Cached(router, prompt), 64) << "blocks 0 to 3 are sound";
  router.WaitForStatus("damaged", [](const auto& s) { return s.disk.blocks_damaged == 1; });
  router.ExpectIdle();
}

TEST_F(PrefillDiskTest, ServesAPrefixFromDisk) {
  RunningWorker<PrefillWorker> donor(Options()), fetcher(model_.Options("prefill-1", 32));
  TestRouter to_donor(donor->address()), to_fetcher(fetcher->address());
  const auto prompt = Prompt(150, 1);
  EXPECT_EQ(Cached(to_donor, prompt), 0);
  EXPECT_EQ(Cached(to_donor, Prompt(200, 2)), 0);
  WaitForWritten(to_donor, 9 + 12);
  PrefillCommand command = Command(prompt);
  command.prefix_tokens = 128;
  to_fetcher.Send(command);
  to_donor.Send(worker_link::ServePrefixCommand{.attempt = command.attempt,
                                                .prompt = prompt,
                                                .cache_salt = "",
                                                .target_address = to_fetcher.info().handoff_address,
                                                .target_name = "prefill-1",
                                                .timeout = seconds(60)});
  EXPECT_EQ(TakeAnswer(to_fetcher, command).prefill->cached_prompt_tokens, 144);
  EXPECT_TRUE(to_donor.Wait(command.attempt).prefilled);
  to_donor.ExpectIdle();
  to_fetcher.ExpectIdle();
  EXPECT_EQ(donor->counters().prefixes_served, 1);
  EXPECT_GE(donor->counters().disk_tokens, 144 - 32);
}

TEST_F(PrefillDiskTest, AnswersWhileManyPromptsReadWriteAndAreCancelled) {
  RunningWorker<PrefillWorker> worker(Options("prefill-0", 24));
  TestRouter router(worker->address());
  for (uint32_t seed = 1; seed <= 3; ++seed) Cached(router, Prompt(150, seed));
  for (uint32_t round = 0; round < 20; ++round) {
    const PrefillCommand given_up = Command(Prompt(150, 1 + round % 3));
    router.Send(given_up);
    router.Send(worker_link::CancelCommand{given_up.attempt});
    router.Wait(given_up.attempt);
    PrefillCommand command = Command(Prompt(150, 1 + (round + 1) % 3));
    router.Send(command);
    // An offer of the cancelled one may come first.
    auto offer = target_.Next<kv_transfer::OfferArrived>().offer;
    if (offer.attempt == given_up.attempt) {
      target_.service().Refuse(offer.attempt, absl::CancelledError("cancelled"));
      offer = target_.Next<kv_transfer::OfferArrived>().offer;
    }
    target_.GrantAll(offer);
    EXPECT_TRUE(target_.Next<kv_transfer::TargetDone>().status.ok());
    engine::ExpectSame(router.Wait(command.attempt).tokens,
                       model_.Answer(command.prompt, engine::GreedyTokens(1)));
  }
  router.ExpectIdle();
  EXPECT_GT(worker->counters().disk_tokens, 0);
}

TEST_F(PrefillDiskTest, ADiskThatDoesNotAnswerCostsTimeNotTheAnswer) {
  auto host = worker_common::WorkerHost::Create(model_.Options("prefill-0", kSmallPool),
                                                worker_link::Role::kPrefill);
  ASSERT_TRUE(host.ok()) << host.status();
  // The tier's thread stops here after its first read, until the disk is said to answer again.
  std::promise<void> answers;
  const std::shared_future<void> answered = answers.get_future().share();
  auto disk =
      kv_disk::DiskTier::Create({.directory = directory_.File(""),
                                 .name = "prefill-0",
                                 .bytes = int64_t{1} << 20,
                                 .block_bytes = (*host)->executor().pool().layout().block_bytes(),
                                 .identity = "test"},
                                [&] {
                                  (*host)->inputs().Wake();
                                  answered.wait();
                                });
  ASSERT_TRUE(disk.ok()) << disk.status();
  PrefillLoop loop(host->get(), disk->get());
  std::thread thread([&] { loop.Run(); });
  {
    TestRouter router((*host)->server().address());
    const auto a = Prompt(150, 1), b = Prompt(200, 2);
    EXPECT_EQ(Cached(router, a), 0);
    EXPECT_EQ(Cached(router, b), 0);
    WaitForWritten(router, 9 + 12);
    EXPECT_EQ(Cached(router, a), 144);
    // Taken for read and then given up, or not asked for: it is computed, but for what the pool
    // has.
    EXPECT_LT(Cached(router, b), 192);
    EXPECT_EQ(Cached(router, Prompt(20, 3)), 0);
    router.ExpectIdle();
    answers.set_value();
    WaitForWritten(router, 9 + 12 + 1);  // the disk answers again
    EXPECT_EQ(Cached(router, a), 144);
    router.ExpectIdle();
  }
  loop.Drain();
  thread.join();
}

TEST_F(PrefillDiskTest, IsNotMadeWithADiskThatItCannotUse) {
  WorkerOptions options = Options();
  options.disk_directory = directory_.File("missing");
  EXPECT_EQ(PrefillWorker::Create(options).status().code(), absl::StatusCode::kNotFound);
  options = Options();
  options.prefix_cache = false;
  EXPECT_EQ(PrefillWorker::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  const auto first = PrefillWorker::Create(Options());
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = PrefillWorker::Create(Options());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().ToString(), testing::HasSubstr("in use by another process"));
}

}  // namespace
}  // namespace baton::prefill_worker
