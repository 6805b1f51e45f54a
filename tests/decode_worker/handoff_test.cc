// A decode worker that gets its prompts' KV from a real prefill worker, or from a source that fails
// in one way or another. Whatever happens, the answer is the engine's.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "decode_worker/worker.h"
#include "prefill_worker/worker.h"
#include "tests/decode_worker/decode_testing.h"
#include "worker_common/host.h"

namespace baton::decode_worker {
namespace {

using engine::GreedyTokens;
using prefill_worker::PrefillWorker;
using std::chrono::milliseconds;
using std::chrono::seconds;
using worker_link::PrefillCommand;

DecodeCommand ByHandoff(DecodeCommand command) {
  command.handoff = true;
  return command;
}

// The prefill half of a request.
PrefillCommand PrefillFor(const DecodeCommand& decode, const worker_link::WorkerInfo& target) {
  PrefillCommand command;
  command.attempt = decode.attempt;
  command.prompt = decode.prompt;
  command.output_tokens = decode.output_tokens;
  command.sampling = decode.sampling;
  command.cache_salt = decode.cache_salt;
  command.target_address = target.handoff_address;
  command.target_name = target.name;
  command.timeout = decode.timeout;
  return command;
}

// One prefill and one decode worker.
struct Pair {
  Pair(const worker_common::WorkerOptions& prefill_options,
       const worker_common::WorkerOptions& decode_options)
      : prefill(prefill_options),
        decode(decode_options),
        to_prefill(prefill->address()),
        to_decode(decode->address()) {}
  void Send(const DecodeCommand& command) {
    to_decode.Send(command);
    to_prefill.Send(PrefillFor(command, to_decode.info()));
  }
  void ExpectIdle() {
    to_prefill.ExpectIdle();
    to_decode.ExpectIdle();
  }
  RunningWorker<PrefillWorker> prefill;
  RunningWorker<DecodeWorker> decode;
  TestRouter to_prefill;
  TestRouter to_decode;
};

using HandoffTest = DecodeTest;

TEST_F(HandoffTest, AnswersAsTheEngineAlone) {
  Pair pair(model().Options("prefill-0", 64), model().Options("decode-0", 64));
  EXPECT_EQ(pair.to_prefill.info().fingerprint, pair.to_decode.info().fingerprint);
  std::vector<DecodeCommand> commands;
  for (const size_t tokens : {1, 15, 16, 17, 32, 100, 200}) {
    const auto seed = static_cast<uint32_t>(tokens);
    const SamplingParams sampling = tokens % 2 == 0 ? GreedyTokens(20) : SeededTokens(20, seed);
    commands.push_back(ByHandoff(Command(AttemptOf(tokens), Prompt(tokens, seed), sampling)));
    pair.Send(commands.back());
  }
  for (const DecodeCommand& command : commands) {
    ExpectRightAnswer(pair.to_decode, command);
    const Outcome prefill = pair.to_prefill.Wait(command.attempt);
    EXPECT_TRUE(prefill.prefilled);
    const Outcome decode = pair.to_decode.Wait(command.attempt);
    engine::ExpectSame(prefill.tokens, {decode.tokens[0]});
    EXPECT_EQ(decode.finished->transport, "inproc");
    EXPECT_EQ(decode.finished->kv_blocks_moved,
              static_cast<int32_t>((command.prompt.size() + 15) / 16));
    EXPECT_GT(decode.finished->kv_bytes_moved, 0);
    EXPECT_GT(decode.finished->handover, Duration{});
    EXPECT_LT(decode.finished->handover, std::chrono::seconds(10));
  }
  pair.ExpectIdle();
  EXPECT_EQ(pair.decode->counters().handoffs, 7);
  EXPECT_EQ(pair.decode->counters().prefill_tokens, 0);
  EXPECT_EQ(pair.prefill->counters().handoffs, 7);
  pair.to_decode.WaitForStatus("counters and path", [](const auto& s) {
    return s.kv == worker_link::KvCounters{.handoffs = 7} && s.paths.size() == 1 &&
           s.paths[0].source == "prefill-0" && s.paths[0].transport == "inproc" &&
           s.paths[0].in_use && s.paths[0].bytes_per_s > 0;
  });
}

// A stream that another worker began: prompt and output so far are prefilled, here or there, and
// what comes then is what had come without the move, sampling, penalties and log probabilities too.
TEST_F(HandoffTest, GoesOnBehindOutputThatAnotherWorkerGave) {
  Pair pair(model().Options("prefill-0", 64), model().Options("decode-0", 64));
  uint64_t number = 0;
  for (const bool greedy : {false, true}) {
    SamplingParams sampling = greedy ? GreedyTokens(40) : SeededTokens(40, 9);
    sampling.frequency_penalty = 0.3f;
    sampling.min_tokens = 30;
    const std::vector<TokenId> prompt = Prompt(27, 3);
    const std::vector<OutputToken> right = model().Answer(prompt, sampling);
    ASSERT_EQ(right.size(), 40u);
    for (const size_t cut : {1, 4, 5, 6, 20, 39, 40}) {
      for (const bool handoff : {false, true}) {
        SCOPED_TRACE(testing::Message() << "greedy " << greedy << ", behind " << cut << " tokens, "
                                        << (handoff ? "by handoff" : "alone"));
        DecodeCommand command = Command(AttemptOf(++number, 1), prompt, sampling);
        command.cache_salt = std::to_string(number);
        command.handoff = handoff;
        command.output_tokens = static_cast<int32_t>(cut);
        for (size_t i = 0; i < cut; ++i) command.prompt.push_back(right[i].token);
        pair.to_decode.ExpectFrom(command.attempt, command.output_tokens);
        pair.to_prefill.ExpectFrom(command.attempt, command.output_tokens);
        if (handoff) {
          pair.Send(command);
        } else {
          pair.to_decode.Send(command);
        }
        const Outcome outcome = pair.to_decode.Wait(command.attempt);
        ASSERT_TRUE(outcome.finished) << outcome.failed.value_or(absl::OkStatus());
        engine::ExpectSame(outcome.tokens,
                           {right.begin() + static_cast<ptrdiff_t>(cut), right.end()});
        EXPECT_EQ(outcome.finished->output_tokens, 40);
        EXPECT_EQ(outcome.finished->reason, FinishReason::kLength);
        if (!handoff) continue;
        const Outcome prefill = pair.to_prefill.Wait(command.attempt);
        EXPECT_EQ(prefill.prefilled.has_value(), cut < 40)
            << "nothing is left to do behind the last";
        EXPECT_EQ(outcome.finished->kv_blocks_moved > 0, cut < 40);
      }
    }
  }
  pair.ExpectIdle();
}

TEST_F(HandoffTest, BlocksThatAreHereAlreadyDoNotMoveAgain) {
  Pair pair(model().Options("prefill-0", 64), model().Options("decode-0", 64));
  // A multiple of the block size: all of it is cached the second time.
  for (const size_t tokens : {96, 100}) {
    const DecodeCommand first =
        ByHandoff(Command(AttemptOf(tokens), Prompt(tokens, 5), GreedyTokens(4)));
    pair.Send(first);
    ExpectRightAnswer(pair.to_decode, first);
    DecodeCommand second = first;
    second.attempt = AttemptOf(1000 + tokens);
    pair.Send(second);
    ExpectRightAnswer(pair.to_decode, second);
    const Outcome outcome = pair.to_decode.Wait(second.attempt);
    EXPECT_EQ(outcome.finished->cached_prompt_tokens, 96);
    EXPECT_EQ(outcome.finished->kv_blocks_moved, tokens == 96 ? 0 : 1);
    EXPECT_EQ(outcome.finished->steps, 3) << "the first token came with the KV";
    EXPECT_FALSE(outcome.prefill) << "that is the prefill worker's to tell";
    EXPECT_TRUE(pair.to_prefill.Wait(second.attempt).prefill);
    DecodeCommand stranger = first;
    stranger.attempt = AttemptOf(2000 + tokens);
    stranger.cache_salt = "another tenant";
    if (tokens == 96) {
      pair.Send(stranger);
      ExpectRightAnswer(pair.to_decode, stranger);
      EXPECT_EQ(pair.to_decode.Wait(stranger.attempt).finished->cached_prompt_tokens, 0);
    }
  }
  pair.ExpectIdle();
}

// Attention does not depend on the block size, so neither does the answer.
TEST_F(HandoffTest, OtherBlockSizesGiveTheSameAnswer) {
  for (const auto& [from, to] : {std::pair(8, 32), std::pair(32, 8), std::pair(16, 8)}) {
    SCOPED_TRACE(testing::Message() << "blocks of " << from << " to blocks of " << to);
    auto prefill_options = model().Options("prefill-0", 64);
    prefill_options.block_tokens = from;
    auto decode_options = model().Options("decode-0", 64);
    decode_options.block_tokens = to;
    Pair pair(prefill_options, decode_options);
    EXPECT_EQ(pair.to_prefill.info().fingerprint, pair.to_decode.info().fingerprint);
    EXPECT_NE(pair.to_prefill.info().kv_layout, pair.to_decode.info().kv_layout);
    const size_t lengths[] = {1, 8, 31, 32, 100, 200};
    for (const uint64_t pass : {1, 2}) {
      for (const size_t tokens : lengths) {
        const DecodeCommand command = ByHandoff(
            Command(AttemptOf(1000 * pass + tokens), Prompt(tokens, static_cast<uint32_t>(tokens)),
                    SeededTokens(20, tokens)));
        pair.Send(command);
        ExpectRightAnswer(pair.to_decode, command);
        const Outcome outcome = pair.to_decode.Wait(command.attempt);
        // Only what follows the cached prefix moves again, from the block on that it ends in.
        const int32_t cached = pass == 1 ? 0 : static_cast<int32_t>(tokens) / to * to;
        const auto blocks = static_cast<int32_t>(tokens + from - 1) / from;
        EXPECT_EQ(outcome.finished->cached_prompt_tokens, cached);
        EXPECT_EQ(outcome.finished->kv_blocks_moved,
                  cached == static_cast<int32_t>(tokens) ? 0 : blocks - cached / from);
      }
    }
    pair.ExpectIdle();
    EXPECT_EQ(pair.decode->counters().handoffs, 2 * std::ssize(lengths));
    EXPECT_EQ(pair.decode->counters().prefill_tokens, 0);
  }
}

// Converted KV goes on with the source's first token, is cached for its like, and is never taken
// for what this worker would have computed.
TEST_F(HandoffTest, AnotherNumberFormatIsConvertedAndKeptApart) {
  auto prefill_options = model().Options("prefill-0", 64);
  prefill_options.kv_bytes *= 2;
  prefill_options.kv_dtype = kernels::KvDType::kF32;
  prefill_options.block_tokens = 8;
  Pair pair(prefill_options, model().Options("decode-0", 64));
  const DecodeCommand first = ByHandoff(Command(AttemptOf(1), Prompt(100, 1), GreedyTokens(20)));
  pair.Send(first);
  const Outcome answer = pair.to_decode.Wait(first.attempt);
  ASSERT_TRUE(answer.finished) << answer.failed.value_or(absl::OkStatus());
  EXPECT_EQ(answer.tokens.size(), 20u);
  EXPECT_EQ(answer.finished->kv_blocks_moved, 13);
  engine::ExpectSame(pair.to_prefill.Wait(first.attempt).tokens, {answer.tokens[0]});

  DecodeCommand again = first;
  again.attempt = AttemptOf(2);
  pair.Send(again);
  const Outcome same = pair.to_decode.Wait(again.attempt);
  engine::ExpectSame(same.tokens, answer.tokens);
  ASSERT_TRUE(same.finished);
  EXPECT_EQ(same.finished->cached_prompt_tokens, 96);
  EXPECT_EQ(same.finished->kv_blocks_moved, 1);
  EXPECT_EQ(pair.decode->counters().handoffs, 2);
  EXPECT_EQ(pair.decode->counters().handoffs_converted, 2);
  EXPECT_EQ(pair.decode->counters().prefill_tokens, 0);

  // What was computed here after converted KV is not what the source would send for it.
  DecodeCommand longer = first;
  longer.attempt = AttemptOf(4);
  for (const OutputToken& token : answer.tokens) longer.prompt.push_back(token.token);
  pair.Send(longer);
  EXPECT_EQ(pair.to_decode.Wait(longer.attempt).finished->cached_prompt_tokens, 96);

  DecodeCommand here = first;
  here.attempt = AttemptOf(3);
  here.handoff = false;
  pair.to_decode.Send(here);
  ExpectRightAnswer(pair.to_decode, here);
  EXPECT_EQ(pair.decode->counters().prefill_tokens, 100);
  pair.ExpectIdle();
}

TEST_F(HandoffTest, WaitsItsTurnWhenBlocksAreFew) {
  Pair pair(model().Options("prefill-0", 40), model().Options("decode-0", 20));
  std::vector<DecodeCommand> commands;
  for (uint64_t i = 1; i <= 8; ++i) {
    DecodeCommand command =
        Command(AttemptOf(i), Prompt(30 + 10 * i, static_cast<uint32_t>(i)), SeededTokens(60, i));
    command.handoff = i % 4 != 0;
    commands.push_back(command);
    if (command.handoff) {
      pair.Send(command);
    } else {
      pair.to_decode.Send(command);
    }
  }
  for (const DecodeCommand& command : commands) ExpectRightAnswer(pair.to_decode, command);
  pair.ExpectIdle();
}

// The source's end of a handoff, played by the test.
class Source {
 public:
  // Without checksums no block is what it announces.
  explicit Source(TinyModel& model, bool checksums = true) : executor_(model.engine().executor()) {
    kv_transfer::HandoffOptions options;
    options.transport = kv_transfer::TransportKind::kInproc;
    options.layout = executor_.pool().layout();
    options.model_fingerprint = *worker_common::ArithmeticFingerprint(
        model.engine().model().config(), kernels::CpuIsa::kAuto);
    options.block_count = 32;
    options.checksums = checksums;
    auto service = kv_transfer::HandoffService::Create(options, "source", [](auto) {});
    BATON_CHECK(service.ok(), service.status().ToString());
    service_ = *std::move(service);
  }
  kv_transfer::HandoffService* operator->() { return service_.get(); }
  void Offer(const DecodeCommand& command, const worker_link::WorkerInfo& target) {
    kv_transfer::OfferInfo offer;
    offer.attempt = command.attempt;
    offer.tokens = static_cast<int32_t>(command.prompt.size());
    offer.block_hashes = ChainFullBlocks(executor_.ChainRootFor(""), command.prompt, 16);
    offer.source_name = "source";
    std::vector<int32_t> blocks;
    for (int32_t i = 0; i * 16 < offer.tokens; ++i) blocks.push_back(i);
    const absl::Status offered = service_->Offer(offer, target.handoff_address, blocks);
    EXPECT_TRUE(offered.ok()) << offered;
  }
  // The source hears of every ending, too.
  void ExpectAllOver() {
    const TimePoint give_up = SystemClock().Now() + kGenerous;
    while (service_->active_transfers() > 0 && SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    EXPECT_EQ(service_->active_transfers(), 0u);
  }

 private:
  engine::Executor& executor_;
  std::unique_ptr<kv_transfer::HandoffService> service_;
};

TEST_F(HandoffTest, AFailedHandoffCostsTimeNotTheAnswer) {
  Source source(model());
  auto options = model().Options("decode-0", 64);
  options.offer_wait = milliseconds(300);
  RunningWorker<DecodeWorker> worker(options);
  TestRouter router(worker->address());
  uint64_t number = 0;
  int64_t failed = 0;
  int64_t missed = 0;
  const auto next = [&](size_t tokens) {
    ++number;
    return ByHandoff(Command(AttemptOf(number), Prompt(tokens, static_cast<uint32_t>(number)),
                             SeededTokens(10, number)));
  };
  {
    SCOPED_TRACE("the source gives up half way");
    const DecodeCommand command = next(100);
    router.Send(command);
    source.Offer(command, router.info());
    source->BlocksReady(command.attempt, 3);
    router.WaitForStatus("granted", [](const auto& s) { return s.blocks_held == 7; });
    source->CancelSource(command.attempt, absl::UnavailableError("the source dies"));
    ExpectRightAnswer(router, command);
    ++failed;
  }
  {
    SCOPED_TRACE("the source is gone");
    const DecodeCommand command = next(100);
    {
      Source mortal(model());
      mortal.Offer(command, router.info());  // before its request, this time
      router.WaitForStatus("offered", [](const auto& s) { return s.transfers == 1; });
      router.Send(command);
      mortal->BlocksReady(command.attempt, 2);
      router.WaitForStatus("granted", [](const auto& s) { return s.blocks_held == 7; });
    }
    ExpectRightAnswer(router, command);
    ++failed;
  }
  {
    SCOPED_TRACE("the commit carries no token");
    const DecodeCommand command = next(40);
    router.Send(command);
    source.Offer(command, router.info());
    source->Commit(command.attempt, "nonsense");
    ExpectRightAnswer(router, command);
    ++failed;
  }
  {
    SCOPED_TRACE("a block is not what was announced");
    Source wrong(model(), /*checksums=*/false);
    const DecodeCommand command = next(40);
    router.Send(command);
    wrong.Offer(command, router.info());
    wrong->Commit(command.attempt, "");
    ExpectRightAnswer(router, command);
    ++failed;
  }
  {
    SCOPED_TRACE("the offer is of another prompt");
    const DecodeCommand command = next(40);
    DecodeCommand other = command;
    other.prompt[3] ^= 1;
    source.Offer(other, router.info());
    router.Send(command);
    ExpectRightAnswer(router, command);
    ++missed;
  }
  {
    SCOPED_TRACE("no offer comes");
    const DecodeCommand command = next(40);
    router.Send(command);
    ExpectRightAnswer(router, command);
    ++missed;
  }
  router.ExpectIdle();
  const DecodeCounters counters = worker->counters();
  EXPECT_EQ(counters.handoffs_failed, failed);
  EXPECT_EQ(counters.checksum_mismatches, 1);
  EXPECT_EQ(counters.offers_missed, missed);
  EXPECT_EQ(counters.prefill_fallbacks, failed + missed);
  EXPECT_EQ(counters.handoffs, 0);
}

TEST_F(HandoffTest, ARequestWhosePrefillWorkerIsGoneDoesNotWaitForItsOffer) {
  Source source(model());
  auto options = model().Options("decode-0", 64);
  options.offer_wait = kGenerous;
  RunningWorker<DecodeWorker> worker(options);
  TestRouter router(worker->address());
  const DecodeCommand waits = ByHandoff(Command(AttemptOf(1), Prompt(99, 1), GreedyTokens(9)));
  router.Send(waits);
  router.WaitForStatus("awaiting the offer", [](const auto& s) { return s.waiting == 1; });
  router.Send(NoOfferCommand{waits.attempt});
  ExpectRightAnswer(router, waits);
  source.Offer(waits, router.info());  // late: refused

  // One whose transfer runs has its KV coming: nothing changes for it.
  const DecodeCommand receives = ByHandoff(Command(AttemptOf(2), Prompt(99, 2), GreedyTokens(9)));
  router.Send(receives);
  source.Offer(receives, router.info());
  router.WaitForStatus("receiving", [](const auto& s) { return s.blocks_held == 7; });
  router.Send(NoOfferCommand{receives.attempt});
  router.Send(NoOfferCommand{AttemptOf(3)});  // of nobody
  source->CancelSource(receives.attempt, absl::UnavailableError("the source dies"));
  ExpectRightAnswer(router, receives);
  router.ExpectIdle();
  source.ExpectAllOver();
  EXPECT_EQ(worker->counters().offers_missed, 1);
  EXPECT_EQ(worker->counters().handoffs_failed, 1);
}

TEST_F(HandoffTest, CancelsInEveryStageGiveTheBlocksBack) {
  Source source(model());
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 10));
  TestRouter router(worker->address());
  const auto cancelled = [&](uint64_t number) {
    router.Send(CancelCommand{AttemptOf(number)});
    EXPECT_EQ(router.Wait(AttemptOf(number)).failed->code(), absl::StatusCode::kCancelled);
  };
  const DecodeCommand awaiting = ByHandoff(Command(AttemptOf(1), Prompt(99, 1), GreedyTokens(9)));
  router.Send(awaiting);
  router.WaitForStatus("awaiting the offer", [](const auto& s) { return s.waiting == 1; });
  cancelled(1);
  source.Offer(awaiting, router.info());  // too late: refused

  const DecodeCommand receiving = ByHandoff(Command(AttemptOf(2), Prompt(99, 2), GreedyTokens(9)));
  router.Send(receiving);
  source.Offer(receiving, router.info());
  source->BlocksReady(AttemptOf(2), 3);
  router.WaitForStatus("receiving", [](const auto& s) { return s.blocks_held == 7; });
  const DecodeCommand in_line = ByHandoff(Command(AttemptOf(3), Prompt(99, 3), GreedyTokens(9)));
  router.Send(in_line);
  source.Offer(in_line, router.info());
  router.WaitForStatus("in line", [](const auto& s) { return s.waiting == 1; });
  cancelled(3);
  cancelled(2);
  router.ExpectIdle();
  source.ExpectAllOver();
}

TEST_F(HandoffTest, ADrainWaitsForTransfers) {
  Source source(model());
  RunningWorker<DecodeWorker> worker(model().Options("decode-0", 64));
  TestRouter router(worker->address());
  const DecodeCommand command = ByHandoff(Command(AttemptOf(1), Prompt(99, 1), GreedyTokens(30)));
  router.Send(command);
  source.Offer(command, router.info());
  router.WaitForStatus("receiving", [](const auto& s) { return s.blocks_held == 7; });
  worker->Drain();
  router.WaitForStatus("draining", [](const auto& s) { return s.draining; });
  source.Offer(Command(AttemptOf(2), Prompt(99, 2), GreedyTokens(1)), router.info());  // refused
  source->CancelSource(AttemptOf(1), absl::UnavailableError("the source dies"));
  ExpectRightAnswer(router, command);
  worker.Join();
  source.ExpectAllOver();
}

// Many requests, some cancelled at some time, in pools that are too small for them.
TEST_F(HandoffTest, EveryRequestEndsOnceAndEveryBlockComesBack) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  auto decode_options = model().Options("decode-0", 24);
  decode_options.max_batch = 4;
  Pair pair(model().Options("prefill-0", 24), decode_options);
  std::vector<DecodeCommand> commands;
  std::vector<bool> cancelled;
  for (uint64_t i = 1; i <= 60; ++i) {
    // Few different prompts, so that the prefix caches matter.
    const auto tokens = static_cast<size_t>(1 + random() % 200);
    DecodeCommand command =
        Command(AttemptOf(i), Prompt(tokens, static_cast<uint32_t>(random() % 3)),
                SeededTokens(static_cast<int32_t>(1 + random() % 40), i));
    command.handoff = random() % 4 != 0;
    if (command.handoff) {
      pair.Send(command);
    } else {
      pair.to_decode.Send(command);
    }
    commands.push_back(command);
    cancelled.push_back(false);
    if (random() % 3 == 0) {
      const size_t victim = random() % commands.size();
      cancelled[victim] = true;
      pair.to_decode.Send(CancelCommand{commands[victim].attempt});
      pair.to_prefill.Send(CancelCommand{commands[victim].attempt});
    }
    if (random() % 4 == 0) std::this_thread::sleep_for(milliseconds(random() % 8));
  }
  for (size_t i = 0; i < commands.size(); ++i) {
    if (cancelled[i]) {
      const Outcome outcome = pair.to_decode.Wait(commands[i].attempt);
      EXPECT_EQ(outcome.endings, 1);
    } else {
      ExpectRightAnswer(pair.to_decode, commands[i]);
    }
    if (commands[i].handoff) {
      EXPECT_EQ(pair.to_prefill.Wait(commands[i].attempt).endings, 1);
    }
  }
  pair.ExpectIdle();
}

}  // namespace
}  // namespace baton::decode_worker
