#include "router/flow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    request.sampling.max_tokens = 100;
    return request;
  }
};

FlowRequest WithStop(std::vector<std::string> stop) {
  FlowRequest request;
  request.stop = std::move(stop);
  return request;
}

TEST(FlowTest, DeliversTokensTextAndStats) {
  FlowRequest with_logprobs;
  with_logprobs.sampling.logprobs = 1;
  Driver driver(with_logprobs);
  driver.Place();
  const std::vector<TokenId> ids = DemoTokens("Paris is big");
  ASSERT_THAT(ids, SizeIs(3));
  driver.Tokens(kPrefill, 0, {ids[0]}, 30);
  PrefilledEvent prefilled{driver.flow.attempt(), 5, milliseconds(4), milliseconds(20)};
  driver.Take(driver.flow.OnEvent(kPrefill, prefilled, At(31)));
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

TEST(FlowTest, LostBeforeAnyTokenIsPlacedAgainOnceWithTheNextEpoch) {
  Driver driver;
  driver.Place();
  FlowActions actions =
      driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("reset")));
  EXPECT_TRUE(actions.place);
  ASSERT_THAT(actions.cancels, SizeIs(1));
  EXPECT_EQ(actions.cancels[0].worker, kPrefill);
  EXPECT_EQ(actions.cancels[0].attempt.epoch, 0u);
  EXPECT_EQ(driver.flow.attempt().epoch, 1u);
  EXPECT_TRUE(driver.flow.waiting());
  driver.Place();
  actions = driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("reset")));
  EXPECT_FALSE(actions.place);
  EXPECT_TRUE(absl::IsUnavailable(*driver.error));
  EXPECT_THAT(driver.Error(), HasSubstr("decode worker 'd0' was lost after 0 tokens: reset"));
}

TEST(FlowTest, DecodeWorkerLostAfterTokensIsUnavailable) {
  Driver driver;
  driver.Place().Tokens(kDecode, 0, {1, 2});
  const FlowActions actions =
      driver.Take(driver.flow.OnWorkerLost(kDecode, absl::UnavailableError("reset")));
  EXPECT_TRUE(absl::IsUnavailable(*driver.error));
  EXPECT_THAT(driver.Error(), HasSubstr("decode worker 'd0' was lost after 2 tokens: reset"));
  ASSERT_THAT(actions.cancels, SizeIs(1));
  EXPECT_EQ(actions.cancels[0].worker, kPrefill);
}

TEST(FlowTest, AFailureKeepsItsCodeAndNamesTheWorker) {
  for (const WorkerId worker : {kDecode, kPrefill}) {
    Driver driver;
    driver.Place();
    const FlowActions actions = driver.Failed(worker, absl::ResourceExhaustedError("queue full"));
    EXPECT_TRUE(absl::IsResourceExhausted(*driver.error));
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
    EXPECT_TRUE(actions.place);
    EXPECT_EQ(actions.avoid, worker);
    EXPECT_FALSE(driver.error);
  }
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

}  // namespace
}  // namespace baton::router
