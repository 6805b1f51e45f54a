#include "router/flow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/router/demo_tokenizer.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using worker_link::FailedEvent;
using worker_link::FinishedEvent;
using worker_link::PrefilledEvent;
using worker_link::PrefillTimes;
using worker_link::TokensEvent;

constexpr WorkerId kDecode = 4;
constexpr WorkerId kPrefill = 5;
constexpr WorkerId kDonor = 6;
constexpr RequestId kRequest{10, 20};

TimePoint At(int ms) { return TimePoint(milliseconds(ms)); }

// A flow with what it has put out so far.
class Driver {
 public:
  explicit Driver(FlowRequest request = {})
      : flow(Complete(std::move(request)), &DemoTokenizer()) {}

  Driver& Place(bool prefill = true) {
    flow.OnPlaced({kDecode, "d0"},
                  prefill ? std::optional(FlowWorker{kPrefill, "p0"}) : std::nullopt);
    return *this;
  }
  FlowActions Take(FlowActions actions) {
    for (const auto& output : actions.outputs) {
      EXPECT_FALSE(finish || error) << "output after the end";
      if (const auto* one = std::get_if<Delta>(&output)) {
        deltas.push_back(*one);
        text += one->text;
        for (const TokenDetail& token : one->tokens) tokens.push_back(token.token);
      } else if (const auto* end = std::get_if<Finish>(&output)) {
        finish = *end;
      } else {
        error = std::get<absl::Status>(output);
      }
    }
    return actions;
  }
  FlowActions Tokens(WorkerId from, int32_t first, const std::vector<TokenId>& ids, int ms = 0) {
    TokensEvent event{flow.attempt(), {}};
    for (size_t i = 0; i < ids.size(); ++i) {
      const int32_t position = first + static_cast<int32_t>(i);
      event.tokens.push_back({ids[i], position, -0.5f, {{ids[i], -0.5f}}});
    }
    return Take(flow.OnEvent(from, event, At(ms)));
  }
  FlowActions Finished(int32_t output_tokens, FinishReason reason = FinishReason::kStop,
                       int ms = 0) {
    FinishedEvent event;
    event.attempt = flow.attempt();
    event.reason = reason;
    event.output_tokens = output_tokens;
    event.transport = "shm";
    event.kv_blocks_moved = 3;
    event.kv_bytes_moved = 300;
    event.handover = std::chrono::milliseconds(125);
    return Take(flow.OnEvent(kDecode, event, At(ms)));
  }
  FlowActions Failed(WorkerId from, absl::Status status) {
    return Take(flow.OnEvent(from, FailedEvent{flow.attempt(), std::move(status)}, At(0)));
  }
  std::string Error() const { return error ? error->ToString() : "no error"; }

  Flow flow;
  std::vector<Delta> deltas;
  std::vector<TokenId> tokens;
  std::string text;
  std::optional<Finish> finish;
  std::optional<absl::Status> error;

 private:
  static FlowRequest Complete(FlowRequest request) {
    request.id = kRequest;
    request.prompt_tokens = 7;
    request.sampling.max_tokens = std::max(request.sampling.max_tokens, 100);
    return request;
  }
};

FlowRequest WithStop(std::vector<std::string> stop) {
  FlowRequest request;
  request.stop = std::move(stop);
  return request;
}

TEST(FlowTest, AResumedFlowContinuesTextAndStopStringsWhereTheyWere) {
  const std::vector<TokenId> ids = DemoTokens("Paris is big");
  FlowRequest request = WithStop({"is b"});
  request.resume_tokens = {ids[0], ids[1]};  // "Paris is": " is" is held back, "is b" may follow
  Driver driver(request);
  EXPECT_THAT(driver.flow.OnResumed(At(0)).outputs, IsEmpty());
  driver.Place();
  driver.Tokens(kDecode, 2, {ids[2]}, 5);
  EXPECT_EQ(driver.tokens, (std::vector<TokenId>{ids[2]}));
  EXPECT_EQ(driver.deltas.at(0).index, 2);
  EXPECT_EQ(driver.text, "");
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->reason, FinishReason::kStop);
  EXPECT_EQ(driver.finish->output_tokens, 3);
}

TEST(FlowTest, AResumedFlowWhoseTokensStoppedIsOver) {
  FlowRequest request = WithStop({"is"});
  request.resume_tokens = DemoTokens("Paris is big");
  Driver stopped(request);
  stopped.Take(stopped.flow.OnResumed(At(0)));
  ASSERT_TRUE(stopped.finish);
  EXPECT_EQ(stopped.finish->reason, FinishReason::kStop);
  FlowRequest ended;
  ended.resume_tokens = {DemoTokens("Paris")[0], DemoTokenizer().end_tokens().front()};
  Driver over(ended);
  over.Take(over.flow.OnResumed(At(0)));
  ASSERT_TRUE(over.finish);
  EXPECT_EQ(over.finish->output_tokens, 2);
  ended.sampling.ignore_eos = true;
  Driver goes_on(ended);
  goes_on.Take(goes_on.flow.OnResumed(At(0)));
  EXPECT_FALSE(goes_on.finish);
}

TEST(FlowTest, DeliversTokensTextAndStats) {
  FlowRequest with_logprobs;
  with_logprobs.sampling.logprobs = 1;
  Driver driver(with_logprobs);
  driver.Place();
  const std::vector<TokenId> ids = DemoTokens("Paris is big");
  ASSERT_THAT(ids, SizeIs(3));
  TokensEvent first{driver.flow.attempt(), {{ids[0], 0, -0.5f, {{ids[0], -0.5f}}}}, PrefillTimes{}};
  first.prefill->cached_prompt_tokens = 5;
  first.prefill->queue = milliseconds(4);
  driver.Take(driver.flow.OnEvent(kPrefill, first, At(30)));
  driver.Take(driver.flow.OnEvent(kPrefill, PrefilledEvent{driver.flow.attempt()}, At(31)));
  driver.Tokens(kDecode, 0, ids, 50);
  driver.Finished(3, FinishReason::kLength, 60);
  EXPECT_EQ(driver.tokens, ids);
  EXPECT_EQ(driver.text, "Paris is big");
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->reason, FinishReason::kLength);
  EXPECT_EQ(driver.finish->prompt_tokens, 7);
  EXPECT_EQ(driver.finish->output_tokens, 3);
  const RequestStats& stats = driver.finish->stats;
  EXPECT_EQ(stats.request_id, ToString(kRequest));
  EXPECT_EQ(stats.prefill_worker, "p0");
  EXPECT_EQ(stats.decode_worker, "d0");
  EXPECT_EQ(stats.transport, "shm");
  EXPECT_EQ(stats.kv_bytes_moved, 300);
  EXPECT_EQ(stats.handover_s, 0.125);
  EXPECT_EQ(stats.cached_prompt_tokens, 5);
  EXPECT_DOUBLE_EQ(stats.ttft_s, 0.030);
  EXPECT_DOUBLE_EQ(stats.mean_itl_s, 0.010);
  EXPECT_DOUBLE_EQ(stats.total_s, 0.060);
  EXPECT_EQ(driver.deltas[0].tokens[0].text, "Paris");
  EXPECT_FLOAT_EQ(driver.deltas[0].tokens[0].logprob, -0.5f);
  EXPECT_EQ(driver.deltas[0].tokens[0].top.at(0).text, "Paris");
}

TEST(FlowTest, AnAnswerInOnePieceComesWithItsEnd) {
  FlowRequest request;
  request.in_pieces = request.tells_tokens = false;
  Driver driver(request);
  driver.Place();
  const std::vector<TokenId> ids = DemoTokens("Paris is big");
  for (size_t i = 0; i < ids.size(); ++i) {
    driver.Tokens(kDecode, static_cast<int32_t>(i), {ids[i]});
    EXPECT_EQ(driver.flow.tokens_delivered(), static_cast<int32_t>(i) + 1);
  }
  EXPECT_THAT(driver.deltas, IsEmpty());
  driver.Finished(3);
  ASSERT_THAT(driver.deltas, SizeIs(1));
  EXPECT_EQ(driver.text, "Paris is big");
  EXPECT_THAT(driver.tokens, IsEmpty()) << "nobody asked for them";
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->output_tokens, 3);
}

TEST(FlowTest, DetailsOfALongAnswerInOnePieceComeInParts) {
  FlowRequest request;
  request.in_pieces = false;
  request.sampling.logprobs = 1;
  request.sampling.max_tokens = 300;
  Driver driver(request);
  driver.Place();
  const TokenId id = DemoTokens("a").front();
  for (int32_t i = 0; i < 300; ++i) driver.Tokens(kDecode, i, {id});
  driver.Finished(300, FinishReason::kLength);
  EXPECT_EQ(driver.tokens, std::vector<TokenId>(300, id));
  EXPECT_EQ(driver.text, std::string(300, 'a'));
  ASSERT_THAT(driver.deltas, SizeIs(3));
  EXPECT_EQ(driver.deltas[1].index, 128);
  EXPECT_EQ(driver.deltas[2].index, 256);
}

TEST(FlowTest, TokensWithoutTextAreNoPieceWhereOnlyTextIsAskedFor) {
  const std::vector<TokenId> ids = DemoTokens("a\xF0\x9F\xA6\x94");  // a rare character
  ASSERT_GT(ids.size(), 2u) << "of several tokens";
  FlowRequest request;
  request.tells_tokens = false;
  Driver driver(request);
  driver.Place();
  for (size_t i = 0; i < ids.size(); ++i) {
    driver.Tokens(kDecode, static_cast<int32_t>(i), {ids[i]});
  }
  EXPECT_EQ(driver.text, "a\xF0\x9F\xA6\x94");
  EXPECT_THAT(driver.deltas, SizeIs(2));
  // The first one tells that the answer has begun, whatever is in it.
  Driver half(request);
  half.Place().Tokens(kDecode, 0, {ids[1]});
  EXPECT_THAT(half.deltas, SizeIs(1));
  EXPECT_EQ(half.text, "");
}

TEST(FlowTest, LocalPrefillNamesTheDecodeWorkerTwice) {
  Driver driver;
  driver.Place(/*prefill=*/false).Tokens(kDecode, 0, DemoTokens("a"));
  driver.Finished(1);
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->stats.prefill_worker, "d0");
}

TEST(FlowTest, CharactersAreDeliveredWhole) {
  Driver driver;
  driver.Place(false);
  const std::vector<TokenId> ids = DemoTokens("\U0001F9D1\u200D\U0001F680 \U0001FAE0");
  ASSERT_GT(ids.size(), 4u);
  for (size_t i = 0; i < ids.size(); ++i) {
    driver.Tokens(kDecode, static_cast<int32_t>(i), {ids[i]});
  }
  EXPECT_EQ(driver.text, "\U0001F9D1\u200D\U0001F680 \U0001FAE0");
  for (const Delta& delta : driver.deltas) {
    EXPECT_TRUE(delta.text.empty() || (delta.text[0] & 0xC0) != 0x80);
  }
  EXPECT_THAT(driver.deltas, SizeIs(ids.size()));
}

TEST(FlowTest, StopStringAcrossTokensEndsTheAnswerAndCancelsTheWorkers) {
  Driver driver(WithStop({"brown fox"}));
  driver.Place();
  const std::vector<TokenId> ids = DemoTokens("The quick brown fox jumps over");
  ASSERT_THAT(ids, SizeIs(6));
  const FlowActions actions = driver.Tokens(kDecode, 0, ids);
  EXPECT_EQ(driver.text, "The quick ");
  EXPECT_THAT(driver.tokens, ElementsAre(ids[0], ids[1], ids[2], ids[3]));
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->reason, FinishReason::kStop);
  EXPECT_EQ(driver.finish->output_tokens, 4);
  ASSERT_THAT(actions.cancels, SizeIs(2));
  EXPECT_EQ(actions.cancels[0].worker, kDecode);
  EXPECT_EQ(actions.cancels[1].worker, kPrefill);
  EXPECT_THAT(driver.Finished(6).outputs, IsEmpty());
}

TEST(FlowTest, TextThatOnlyBeganAStopStringComesWithTheFinish) {
  Driver driver(WithStop({" quick brown"}));
  driver.Place(false).Tokens(kDecode, 0, DemoTokens("The quick"));
  EXPECT_EQ(driver.text, "The");
  driver.Finished(2);
  EXPECT_EQ(driver.text, "The quick");
  EXPECT_THAT(driver.deltas.back().tokens, IsEmpty());
  EXPECT_EQ(driver.deltas.back().index, 2);
  EXPECT_TRUE(driver.finish);
}

TEST(FlowTest, NothingStopsTheAnswerBeforeMinTokens) {
  FlowRequest request = WithStop({" quick", " jumps"});
  request.sampling.min_tokens = 3;
  Driver driver(request);
  driver.Place(false).Tokens(kDecode, 0, DemoTokens("The quick brown fox jumps over"));
  EXPECT_EQ(driver.text, "The quick brown fox");
  EXPECT_TRUE(driver.finish);
}

TEST(FlowTest, AStopTokenIsNoPartOfTheText) {
  const std::vector<TokenId> ids = DemoTokens("The quick");
  FlowRequest request;
  request.sampling.stop_token_ids = {ids[1]};
  Driver driver(request);
  driver.Place(false).Tokens(kDecode, 0, ids);
  driver.Finished(2);
  EXPECT_EQ(driver.text, "The");
  EXPECT_EQ(driver.tokens, ids);
  EXPECT_EQ(driver.finish->output_tokens, 2);
}

TEST(FlowTest, OtherAttemptsAndWorkersAreIgnored) {
  Driver driver;
  driver.Place();
  TokensEvent old{{kRequest, 7}, {{1, 0, 0, {}}}};
  EXPECT_THAT(driver.Take(driver.flow.OnEvent(kDecode, old, At(0))).outputs, IsEmpty());
  EXPECT_THAT(driver.Tokens(99, 0, {1}).outputs, IsEmpty());
  EXPECT_FALSE(driver.flow.OnWorkerLost(99, absl::UnavailableError("x")).place);
  EXPECT_TRUE(driver.tokens.empty());
}

TEST(FlowTest, WorkersThatDisagreeAreAnErrorNotAnAnswer) {
  Driver driver;
  driver.Place().Tokens(kPrefill, 0, {100});
  const FlowActions actions = driver.Tokens(kDecode, 0, {101});
  EXPECT_THAT(driver.Error(), HasSubstr("'p0' and 'd0' disagree about the token of position 0"));
  EXPECT_TRUE(absl::IsInternal(*driver.error));
  EXPECT_THAT(actions.cancels, SizeIs(2));
}

TEST(FlowTest, AbsurdPositionsAreAnError) {
  for (const int32_t position : {-1, 100, INT32_MAX}) {
    Driver driver;
    driver.Place().Tokens(kDecode, position, {1});
    EXPECT_THAT(driver.Error(), HasSubstr("max_tokens is 100"));
  }
}

TEST(FlowTest, AFinishWithMissingTokensIsAnError) {
  Driver driver;
  driver.Place(false).Tokens(kDecode, 0, {1, 2});
  driver.Finished(5);
  EXPECT_THAT(driver.Error(), HasSubstr("finished after 5 tokens, but 2 came in order"));
}

TEST(FlowTest, ALostDecodeWorkersRequestIsPlacedAgainWithTheNextEpoch) {
  FlowRequest request;
  request.max_migrations = 2;
  Driver driver(request);
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    driver.Place();
    const FlowActions actions =
        driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("reset")));
    ASSERT_TRUE(actions.place);
    EXPECT_EQ(actions.place->reason, MoveReason::kLost);
    ASSERT_THAT(actions.cancels, SizeIs(1));
    EXPECT_EQ(actions.cancels[0].worker, kPrefill);
    EXPECT_EQ(actions.cancels[0].attempt.epoch, epoch);
    EXPECT_EQ(driver.flow.attempt().epoch, epoch + 1);
    EXPECT_TRUE(driver.flow.waiting());
  }
  driver.Place();
  const FlowActions actions =
      driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("reset")));
  EXPECT_FALSE(actions.place) << "the request's budget is spent";
  EXPECT_TRUE(absl::IsUnavailable(*driver.error));
  EXPECT_THAT(driver.Error(), HasSubstr("decode worker 'd0' was lost after 0 tokens: reset"));
}

// In mid-stream: the next worker goes on behind what was delivered, stop strings that were held
// back and incomplete characters included.
TEST(FlowTest, AStreamGoesOnAtAnotherWorker) {
  const std::vector<TokenId> ids = DemoTokens("The quick brown \U0001FAE0 fox jumps over");
  for (size_t cut = 1; cut + 1 < ids.size(); ++cut) {
    SCOPED_TRACE(cut);
    Driver driver(WithStop({"fox jumps"}));
    const auto begin = ids.begin();
    driver.Place(false).Tokens(kDecode, 0, {begin, begin + static_cast<ptrdiff_t>(cut)});
    EXPECT_TRUE(driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("x"))).place);
    EXPECT_THAT(driver.flow.delivered(), SizeIs(cut));
    driver.flow.OnPlaced({kDonor, "d1"}, std::nullopt);
    TokensEvent late{{kRequest, 0}, {{ids[cut], static_cast<int32_t>(cut), 0, {}}}};
    EXPECT_THAT(driver.Take(driver.flow.OnEvent(kDecode, late, At(0))).outputs, IsEmpty());
    driver.Tokens(kDonor, static_cast<int32_t>(cut),
                  {begin + static_cast<ptrdiff_t>(cut), ids.end()});
    EXPECT_EQ(driver.text, "The quick brown \U0001FAE0 ");
    ASSERT_TRUE(driver.finish);
    EXPECT_EQ(driver.finish->reason, FinishReason::kStop);
    EXPECT_EQ(driver.finish->stats.decode_worker, "d1");
    EXPECT_EQ(driver.finish->stats.migrations, 1);
  }
}

TEST(FlowTest, AStalledWorkerIsCancelledAndReplaced) {
  Driver driver;
  driver.Place().Tokens(kDecode, 0, {1, 2});
  FlowActions actions =
      driver.Take(driver.flow.OnWorkerStalled(kDecode, absl::UnavailableError("silent")));
  ASSERT_TRUE(actions.place);
  EXPECT_EQ(actions.place->reason, MoveReason::kStalled);
  EXPECT_THAT(actions.place->why.ToString(), HasSubstr("'d0' stalled after 2 tokens: silent"));
  ASSERT_THAT(actions.cancels, SizeIs(2));
  EXPECT_EQ(actions.cancels[0].worker, kDecode);
  EXPECT_EQ(actions.cancels[0].attempt.epoch, 0u);
  EXPECT_THAT(driver.flow.avoid(), ElementsAre(kDecode));

  Driver prefill;
  prefill.Place();
  actions = prefill.Take(prefill.flow.OnWorkerStalled(kPrefill, absl::UnavailableError("silent")));
  EXPECT_TRUE(actions.place) << "nothing was delivered: another prefill worker may do it";
  EXPECT_THAT(actions.cancels, SizeIs(2));
  prefill.Place().Tokens(kPrefill, 0, {1});
  actions = prefill.Take(prefill.flow.OnWorkerStalled(kPrefill, absl::UnavailableError("silent")));
  EXPECT_FALSE(actions.place);
  EXPECT_EQ(actions.no_offer, kDecode);
  EXPECT_THAT(actions.cancels, SizeIs(1));
}

TEST(FlowTest, ADrainedWorkersStreamsMoveAsOftenAsWorkersDrain) {
  FlowRequest request;
  request.max_migrations = 0;
  Driver driver(request);
  for (int32_t i = 0; i < 5; ++i) {
    driver.Place(false).Tokens(kDecode, i, {i + 1});
    const FlowActions actions = driver.Take(driver.flow.OnWorkerLeaving(kDecode));
    ASSERT_TRUE(actions.place);
    EXPECT_EQ(actions.place->reason, MoveReason::kDrained);
    EXPECT_TRUE(actions.place->why.ok());
    EXPECT_THAT(actions.cancels, SizeIs(1));
  }
  EXPECT_THAT(driver.flow.avoid(), IsEmpty());
  driver.Place().Tokens(kPrefill, 5, {6});
  EXPECT_FALSE(driver.flow.OnWorkerLeaving(kPrefill).place) << "its KV is on its way";
  driver.Tokens(kDecode, 5, {6});
  driver.Finished(6);
  EXPECT_EQ(driver.finish->stats.migrations, 5);
}

TEST(FlowTest, AFailureKeepsItsCodeAndNamesTheWorker) {
  for (const WorkerId worker : {kDecode, kPrefill}) {
    Driver driver;
    driver.Place();
    const FlowActions actions = driver.Failed(worker, absl::InvalidArgumentError("no such token"));
    EXPECT_TRUE(absl::IsInvalidArgument(*driver.error));
    EXPECT_THAT(driver.Error(),
                HasSubstr(worker == kDecode ? "decode worker 'd0'" : "prefill worker 'p0'"));
    ASSERT_THAT(actions.cancels, SizeIs(1));
    EXPECT_EQ(actions.cancels[0].worker, worker == kDecode ? kPrefill : kDecode);
  }
}

TEST(FlowTest, ATransientFailureIsPlacedAgainAvoidingTheWorker) {
  for (const WorkerId worker : {kDecode, kPrefill}) {
    Driver driver;
    driver.Place();
    const FlowActions actions = driver.Failed(worker, absl::DataLossError("checksum"));
    ASSERT_TRUE(actions.place);
    EXPECT_EQ(actions.place->reason, MoveReason::kFailed);
    EXPECT_THAT(driver.flow.avoid(), ElementsAre(worker));
    EXPECT_FALSE(driver.error);
  }
}

TEST(FlowTest, OverloadOfADecodeWorkerIsTriedElsewhereThatOfAPrefillWorkerIsTheAnswer) {
  Driver decode;
  decode.Place();
  const FlowActions actions = decode.Failed(kDecode, absl::ResourceExhaustedError("queue full"));
  ASSERT_TRUE(actions.place);
  EXPECT_EQ(actions.place->reason, MoveReason::kRefused);
  EXPECT_TRUE(absl::IsResourceExhausted(actions.place->why));
  Driver prefill;
  prefill.Place().Failed(kPrefill, absl::ResourceExhaustedError("queue full"));
  EXPECT_TRUE(absl::IsResourceExhausted(*prefill.error));
}

TEST(FlowTest, OnceATokenIsOutTheDecodeWorkerIsToldThatThePrefillWorkerIsGone) {
  {
    Driver driver;
    driver.Place().Tokens(kPrefill, 0, {1});
    const FlowActions actions =
        driver.Take(driver.flow.OnWorkerLost(kPrefill, absl::UnavailableError("reset")));
    EXPECT_EQ(actions.no_offer, kDecode);
    EXPECT_FALSE(actions.place);
  }
  Driver driver;
  driver.Place().Tokens(kPrefill, 0, {1});
  const FlowActions actions = driver.Failed(kPrefill, absl::UnavailableError("lease"));
  EXPECT_FALSE(actions.place);
  EXPECT_EQ(actions.no_offer, kDecode);
  EXPECT_FALSE(driver.flow.prefill());
  driver.Tokens(kDecode, 0, {1, 2});
  driver.Finished(2);
  EXPECT_TRUE(driver.finish);
}

TEST(FlowTest, AHandoffThatIsRefusedOrWaitedTooLongCostsNoAnswer) {
  for (const absl::Status& why :
       {absl::FailedPreconditionError("d0 does not wait for this KV"),
        absl::DeadlineExceededError("no Grant within 30.0 s of the Offer")}) {
    SCOPED_TRACE(why.ToString());
    Driver driver;
    driver.Place();
    const FlowActions actions = driver.Failed(kPrefill, why);
    EXPECT_FALSE(actions.place);
    EXPECT_EQ(actions.no_offer, kDecode);
    EXPECT_THAT(actions.cancels, IsEmpty());
    EXPECT_FALSE(driver.error);
    driver.Tokens(kDecode, 0, {1, 2});
    driver.Finished(2);
    EXPECT_TRUE(driver.finish);
  }
}

TEST(FlowTest, APrefixThatDoesNotComeIsThePrefillWorkersToCompute) {
  const FlowWorker decode{kDecode, "d0"}, prefill{kPrefill, "p0"}, donor{kDonor, "p1"};
  for (const bool lost : {false, true}) {
    Driver driver;
    driver.flow.OnPlaced(decode, prefill, donor);
    const FlowActions actions =
        lost ? driver.Take(driver.flow.OnWorkerLost(kDonor, absl::UnavailableError("reset")))
             : driver.Failed(kDonor, absl::NotFoundError("not cached"));
    EXPECT_EQ(actions.no_offer, kPrefill);
    EXPECT_FALSE(actions.place || driver.error);
    EXPECT_FALSE(driver.Failed(kDonor, absl::NotFoundError("again")).no_offer);
    driver.Tokens(kDecode, 0, {1});
    driver.Finished(1);
    EXPECT_TRUE(driver.finish);
  }
  Driver driver;
  driver.flow.OnPlaced(decode, prefill, donor);
  EXPECT_THAT(driver.Tokens(kDonor, 0, {1}).outputs, IsEmpty()) << "a donor has no tokens";
  EXPECT_THAT(driver.flow.OnCancel().cancels, SizeIs(3));

  Driver served;
  served.flow.OnPlaced(decode, prefill, donor);
  served.Take(served.flow.OnEvent(kDonor, PrefilledEvent{served.flow.attempt()}, At(0)));
  EXPECT_TRUE(served.flow.prefill()) << "that was the donor's part";
  EXPECT_THAT(served.flow.OnCancel().cancels, SizeIs(2));
}

TEST(FlowTest, CancelTellsTheWorkersAndSaysNothing) {
  Driver driver;
  driver.Place();
  const FlowActions actions = driver.flow.OnCancel();
  EXPECT_THAT(actions.cancels, SizeIs(2));
  EXPECT_THAT(actions.outputs, IsEmpty());
  EXPECT_THAT(driver.Tokens(kDecode, 0, {1}).outputs, IsEmpty());
  EXPECT_THAT(driver.flow.OnError(absl::DeadlineExceededError("late")).outputs, IsEmpty());
}

TEST(FlowTest, AnErrorWhileWaitingEndsIt) {
  Driver driver;
  const FlowActions actions = driver.Take(driver.flow.OnError(absl::UnavailableError("nobody")));
  EXPECT_THAT(actions.cancels, IsEmpty());
  EXPECT_TRUE(driver.error);
  EXPECT_TRUE(driver.flow.ended());
}

FlowRequest Scored() {
  FlowRequest request;
  request.sampling.prompt_logprobs = 0;
  request.first_prompt_token = 504;
  return request;
}

worker_link::PromptScoresEvent Scores(const Flow& flow, int32_t first, int32_t last) {
  worker_link::PromptScoresEvent event{flow.attempt(), {}};
  for (int32_t i = first; i <= last; ++i) event.scores.push_back({i, 500 + i, -0.25f * i, i, {}});
  return event;
}

std::vector<TokenId> PromptOf(const std::vector<Delta>& deltas) {
  std::vector<TokenId> tokens;
  for (const Delta& delta : deltas) {
    if (delta.prompt.empty()) continue;
    EXPECT_EQ(delta.prompt_index, static_cast<int32_t>(tokens.size()));
    for (const TokenDetail& detail : delta.prompt) tokens.push_back(detail.token);
  }
  return tokens;
}

// The prompt has 7 tokens. The decode worker's twin of token 0, and its end, may come before what
// the prefill worker says of the prompt.
TEST(FlowTest, NoTokenComesBeforeThePromptsScores) {
  Driver driver(Scored());
  driver.Place();
  driver.Take(driver.flow.OnEvent(kPrefill, Scores(driver.flow, 1, 3), At(1)));
  driver.Tokens(kDecode, 0, {28, 28});
  driver.Finished(2);
  EXPECT_THAT(driver.tokens, IsEmpty());
  EXPECT_TRUE(driver.flow.awaits_scores());
  driver.Take(driver.flow.OnEvent(kPrefill, Scores(driver.flow, 4, 6), At(2)));
  EXPECT_FALSE(driver.flow.awaits_scores());
  EXPECT_THAT(PromptOf(driver.deltas), ElementsAre(504, 501, 502, 503, 504, 505, 506));
  driver.Tokens(kPrefill, 0, {28});
  EXPECT_THAT(driver.tokens, ElementsAre(28, 28));
  EXPECT_TRUE(driver.finish) << driver.Error();
}

TEST(FlowTest, AnotherAttemptGoesOnWithTheScoresWhereTheyWere) {
  Driver driver(Scored());
  driver.Place();
  driver.Take(driver.flow.OnEvent(kPrefill, Scores(driver.flow, 1, 4), At(1)));
  driver.Tokens(kDecode, 0, {28});
  const FlowActions actions =
      driver.Take(driver.flow.OnWorkerLost(kPrefill, absl::UnavailableError("gone")));
  ASSERT_TRUE(actions.place) << "the decode worker has the KV and scores nothing";
  driver.Place(/*prefill=*/false);
  driver.Take(driver.flow.OnEvent(kDecode, Scores(driver.flow, 1, 6), At(2)));
  EXPECT_THAT(PromptOf(driver.deltas), ElementsAre(504, 501, 502, 503, 504, 505, 506));
  driver.Take(driver.flow.OnEvent(kDecode, Scores(driver.flow, 1, 6), At(3)));
  EXPECT_THAT(PromptOf(driver.deltas), SizeIs(7));
  driver.Tokens(kDecode, 0, {28});
  EXPECT_THAT(driver.tokens, ElementsAre(28));
}

TEST(FlowTest, ScoresWithAHoleAreAnError) {
  Driver driver(Scored());
  driver.Place();
  driver.Take(driver.flow.OnEvent(kPrefill, Scores(driver.flow, 2, 3), At(1)));
  EXPECT_THAT(driver.Error(), HasSubstr("prompt token 2, but 1 of 7 is the next"));
}

TEST(FlowTest, AStopStringMayBePartOfTheAnswer) {
  FlowRequest request = WithStop({"lo"});
  request.include_stop = true;
  Driver driver(std::move(request));
  driver.Place(false);
  driver.Tokens(kDecode, 0, DemoTokenizer().Encode("Hello world", text::SpecialTokens::kPlainText));
  EXPECT_EQ(driver.text, "Hello");
  ASSERT_TRUE(driver.finish);
  EXPECT_EQ(driver.finish->reason, FinishReason::kStop);
}

TEST(FlowTest, SpecialTokensAreShownWhereTheyAreAskedFor) {
  FlowRequest request;
  request.show_special_tokens = true;
  Driver driver(std::move(request));
  driver.Place(false);
  driver.Tokens(kDecode, 0, {28, 2});
  EXPECT_TRUE(driver.text.ends_with("<|im_end|>")) << driver.text;
}

}  // namespace
}  // namespace baton::router
