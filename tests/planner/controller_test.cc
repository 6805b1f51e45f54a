#include "planner/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/workload.h"

namespace baton::planner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A prompt token takes 0.1 ms; a step 10 ms and 0.2 ms more for each sequence.
MeasuredWorker Steady() {
  return {.step_s =
              [](const StepLoad& load) {
                double seconds = load.batch > 0 ? 0.01 + 2e-4 * load.batch : 0;
                for (const PromptRange& prompt : load.prompts) seconds += 1e-4 * prompt.tokens;
                return seconds;
              },
          .kv_tokens = 1e6,
          .chunk_tokens = 256,
          .max_batch = 64};
}

ControlSnapshot Fleet(int prefill, int decode, double rate, double input, double output) {
  ControlSnapshot snapshot{.now_s = 1000, .worker = Steady()};
  for (int i = 0; i < prefill + decode; ++i) {
    const bool is_prefill = i < prefill;
    snapshot.workers.push_back(
        {.name = (is_prefill ? "p" : "d") + std::to_string(is_prefill ? i : i - prefill),
         .prefill = is_prefill,
         .usable = true,
         .requests = 10 - i});
  }
  snapshot.traffic = WorkloadOf(
      {.rate_per_s = rate, .input_tokens = input, .input_cv = 0.5, .output_tokens = output});
  return snapshot;
}

ControlOptions Quick() {
  return {.objectives = {.ttft_s = 2, .itl_s = 0.025}, .confirm = 1, .cooldown_s = 0};
}

ControlDecision Once(const ControlSnapshot& snapshot, const ControlOptions& options) {
  ControlState state;
  return Decide(snapshot, options, &state);
}

TEST(Controller, PromptsThatNobodyKeepsUpWithGetAWorker) {
  // 0.3 s a prompt, 8/s: 2.4 workers' work for two; decode idles.
  const auto decision = Once(Fleet(2, 4, 8, 3000, 20), Quick());
  EXPECT_EQ(decision.action, ControlAction::kFlip) << decision.reason;
  EXPECT_TRUE(decision.to_prefill);
  EXPECT_THAT(decision.workers, ElementsAre("d3", "d2"));  // have the fewest requests
  EXPECT_EQ(decision.new_prefill, 4);
  EXPECT_EQ(decision.new_decode, 2);
  EXPECT_GT(decision.new_goodput_per_s, 1.15 * decision.goodput_per_s);
  EXPECT_THAT(decision.reason, HasSubstr("2:4 carries"));
  EXPECT_THAT(decision.reason, HasSubstr("4:2 carries"));
}

TEST(Controller, LongAnswersGetOneToo) {
  const auto decision = Once(Fleet(4, 2, 6, 300, 500), Quick());
  EXPECT_EQ(decision.action, ControlAction::kFlip) << decision.reason;
  EXPECT_FALSE(decision.to_prefill);
  ASSERT_FALSE(decision.workers.empty());
  EXPECT_EQ(decision.workers[0], "p3");
}

TEST(Controller, WhatIsEnoughStays) {
  const auto decision = Once(Fleet(2, 4, 1, 3000, 20), Quick());
  EXPECT_EQ(decision.action, ControlAction::kHold);
  EXPECT_THAT(decision.reason, HasSubstr("enough"));
}

TEST(Controller, OnlyWhatIsSeenSeveralTimesInARow) {
  ControlOptions options = Quick();
  options.confirm = 3;
  ControlState state;
  const ControlSnapshot busy = Fleet(2, 4, 8, 3000, 20);
  EXPECT_THAT(Decide(busy, options, &state).reason, HasSubstr("seen 1 times of 3"));
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kHold);
  EXPECT_EQ(Decide(Fleet(2, 4, 1, 3000, 20), options, &state).action, ControlAction::kHold);
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kHold);
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kHold);
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kFlip);
}

TEST(Controller, NotSoonAfterAChange) {
  ControlOptions options = Quick();
  options.cooldown_s = 60;
  ControlState state;
  ControlSnapshot busy = Fleet(2, 4, 8, 3000, 20);
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kFlip);
  busy.now_s += 59;
  EXPECT_THAT(Decide(busy, options, &state).reason, HasSubstr("59 s since the last change"));
  busy.now_s += 2;
  EXPECT_EQ(Decide(busy, options, &state).action, ControlAction::kFlip);
}

// What came last is prompts, though the last minutes were of another kind.
ControlSnapshot Surprised(int prefill, int decode, int64_t waiting, double longest_wait_s) {
  ControlSnapshot snapshot = Fleet(prefill, decode, 8, 300, 20);
  snapshot.newest = Fleet(prefill, decode, 8, 3000, 20).traffic;
  snapshot.waiting = waiting;
  snapshot.longest_wait_s = longest_wait_s;
  return snapshot;
}

TEST(Controller, WhereRequestsAreLateItChangesAtTheFirstLook) {
  ControlOptions options = Quick();
  options.confirm = 3;
  options.cooldown_s = 60;
  ControlState state;
  state.changed_s = 990;  // ten seconds ago
  state.to_prefill = true;
  // Nobody is late yet: as ever.
  EXPECT_THAT(Decide(Surprised(2, 4, 10, 1.9), options, &state).reason, HasSubstr("of 60 to wait"));
  const auto decision = Decide(Surprised(2, 4, 40, 2.1), options, &state);
  EXPECT_EQ(decision.action, ControlAction::kFlip) << decision.reason;
  EXPECT_TRUE(decision.urgent);
  EXPECT_EQ(decision.new_prefill, 4);
  EXPECT_THAT(decision.reason, HasSubstr("40 wait, one for 2.1 s; 2:4 carries"));
  EXPECT_EQ(state.changed_s, 1000);
  // Not at once again, whatever is seen.
  ControlSnapshot again = Surprised(2, 4, 40, 4);
  again.now_s = 1002;
  EXPECT_EQ(Decide(again, options, &state).action, ControlAction::kHold);
  again.now_s = 1004;
  EXPECT_EQ(Decide(again, options, &state).action, ControlAction::kFlip);
}

// Late for another reason than the split: what waits is served by it, or no other would be better.
TEST(Controller, LateAloneIsNoReason) {
  ControlOptions options = Quick();
  options.confirm = 3;
  ControlSnapshot enough = Surprised(4, 2, 3, 5);
  EXPECT_FALSE(Once(enough, options).urgent);
  ControlSnapshot hopeless = Surprised(4, 2, 4000, 50);
  EXPECT_FALSE(Once(hopeless, options).urgent);
  EXPECT_EQ(Once(hopeless, options).action, ControlAction::kHold);
}

TEST(Controller, HurryDoesNotGoBack) {
  ControlOptions options = Quick();
  options.cooldown_s = 60;
  ControlState state;
  state.changed_s = 990;  // ten seconds ago
  state.to_prefill = false;
  EXPECT_EQ(Decide(Surprised(2, 4, 40, 2.1), options, &state).action, ControlAction::kHold);
  state.changed_s = 930;
  EXPECT_TRUE(Decide(Surprised(2, 4, 40, 2.1), options, &state).urgent);
}

TEST(Controller, GapsOfFullWorkersAreLateToo) {
  ControlOptions options = Quick();
  options.confirm = 3;
  ControlSnapshot snapshot = Fleet(4, 2, 1, 300, 20);
  snapshot.newest = Fleet(4, 2, 20, 300, 500).traffic;
  EXPECT_EQ(Once(snapshot, options).action, ControlAction::kHold);
  for (ControlWorker& worker : snapshot.workers) worker.requests = 90;  // 64 of them in a step
  options.objectives.itl_s = 0.02;
  const auto decision = Once(snapshot, options);
  EXPECT_TRUE(decision.urgent) << decision.reason;
  EXPECT_FALSE(decision.to_prefill);
  EXPECT_THAT(decision.reason, HasSubstr("180 requests at 2 decode workers"));
}

TEST(Controller, NotWhileAnythingDrains) {
  ControlSnapshot busy = Fleet(2, 4, 8, 3000, 20);
  busy.workers[5].changing = true;
  busy.workers[5].usable = false;
  EXPECT_THAT(Once(busy, Quick()).reason, HasSubstr("'d3' drains"));
}

TEST(Controller, TheLastTwoDecodeWorkersStay) {
  const auto decision = Once(Fleet(1, 2, 8, 3000, 20), Quick());
  EXPECT_EQ(decision.action, ControlAction::kHold);
  EXPECT_THAT(decision.reason, HasSubstr("2 decode workers are the fewest"));
  ControlOptions daring = Quick();
  daring.least_decode = 1;
  EXPECT_EQ(Once(Fleet(1, 2, 8, 3000, 20), daring).action, ControlAction::kFlip);
}

// While objectives hold, nothing is given away that the loss of one worker would need.
TEST(Controller, KeepsWhatTheLossOfOneNeeds) {
  ControlOptions options = Quick();
  options.enough = 100;
  options.gain = 0.01;
  const auto decision = Once(Fleet(6, 3, 10, 300, 190), options);
  EXPECT_GE(decision.goodput_per_s, decision.rate_per_s) << decision.reason;
  const auto other = Once(Fleet(3, 3, 8, 2500, 190), options);
  if (other.action == ControlAction::kHold) {
    EXPECT_THAT(other.reason, HasSubstr("could not be lost"));
  }
}

TEST(Controller, NotByGuesswork) {
  ControlSnapshot unsure = Fleet(2, 4, 8, 3000, 20);
  unsure.uncertainty = 0.8;
  EXPECT_THAT(Once(unsure, Quick()).reason, HasSubstr("known to 80% only"));
  unsure.uncertainty = NAN;
  EXPECT_EQ(Once(unsure, Quick()).action, ControlAction::kHold);
  ControlSnapshot silent = Fleet(2, 4, 8, 3000, 20);
  silent.traffic = absl::FailedPreconditionError("3 requests in the last 120 s");
  EXPECT_THAT(Once(silent, Quick()).reason, HasSubstr("3 requests"));
}

TEST(Controller, SaysWhatNoSplitCanMeet) {
  ControlOptions options = Quick();
  options.objectives.ttft_s = 0.01;
  EXPECT_THAT(Once(Fleet(2, 4, 8, 3000, 20), options).reason, HasSubstr("without any waiting"));
  options.objectives = {.ttft_s = 2, .itl_s = 0.005};
  EXPECT_THAT(Once(Fleet(2, 4, 8, 3000, 20), options).reason,
              HasSubstr("a step with one sequence"));
}

TEST(Controller, GrowsWhereFlipsCanDoNoMoreAndShrinksWhatIdles) {
  ControlOptions options = Quick();
  EXPECT_EQ(Once(Fleet(4, 2, 20, 3000, 100), options).action, ControlAction::kHold);
  options.most_workers = 8;
  const auto more = Once(Fleet(4, 2, 20, 3000, 100), options);
  EXPECT_EQ(more.action, ControlAction::kGrow) << more.reason;
  EXPECT_TRUE(more.to_prefill);
  EXPECT_EQ(more.new_prefill + more.new_decode, 7);
  options.least_workers = 3;
  const auto less = Once(Fleet(4, 4, 0.5, 300, 100), options);
  EXPECT_EQ(less.action, ControlAction::kShrink) << less.reason;
  EXPECT_EQ(less.new_prefill + less.new_decode, 7);
  options.least_workers = 8;
  EXPECT_EQ(Once(Fleet(4, 4, 0.5, 300, 100), options).action, ControlAction::kHold);
}

TEST(Controller, AFleetWithoutOneRoleHasNoRatio) {
  EXPECT_THAT(Once(Fleet(0, 4, 8, 3000, 20), Quick()).reason, HasSubstr("no ratio"));
  EXPECT_THAT(Once(Fleet(0, 0, 8, 3000, 20), Quick()).reason, HasSubstr("no ratio"));
}

}  // namespace
}  // namespace baton::planner
