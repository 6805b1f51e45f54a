// The workers of a simulation, one at a time, on a device whose steps take a second.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "simulator/decode_model.h"
#include "simulator/prefill_model.h"

namespace baton::simulator {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

SimulatedWorker Slow(int32_t blocks) {
  return {.step_s = [](const planner::StepLoad&) { return 1.0; },
          .block_tokens = 4,
          .kv_blocks = blocks,
          .chunk_tokens = 8,
          .max_batch = 4};
}

TEST(PrefillModel, ComputesInChunksAndHoldsBlocksUntilTheyAreTaken) {
  const SimulatedWorker worker = Slow(6);
  PrefillModel model(&worker, 0);
  model.Add({.request = 1, .tokens = 16});
  model.Add({.request = 2, .tokens = 12});
  const auto first = model.BeginStep(0);
  ASSERT_TRUE(first);
  EXPECT_THAT(first->started, ElementsAre(1));  // four blocks; the other's three do not fit
  EXPECT_THAT(first->begun, ElementsAre(1));
  EXPECT_FALSE(model.BeginStep(0)) << "a step runs";
  EXPECT_EQ(model.RemainingTokens(0.5), 12 + 16 - 4);
  EXPECT_THAT(model.EndStep(), IsEmpty());
  ASSERT_TRUE(model.BeginStep(1));
  const auto complete = model.EndStep();
  ASSERT_EQ(complete.size(), 1u);
  EXPECT_EQ(complete[0].last_chunk_tokens, 8);
  EXPECT_FALSE(model.BeginStep(2)) << "its blocks are held";
  model.Release(complete[0]);
  EXPECT_THAT(model.BeginStep(3)->started, ElementsAre(2));
}

TEST(PrefillModel, APrefixIsComputedOnce) {
  const SimulatedWorker worker = Slow(100);
  PrefillModel model(&worker, 4);
  const std::vector<int64_t> prefix{7, 8, 9};
  model.Add({.request = 1, .tokens = 12, .prefix = prefix});
  ASSERT_TRUE(model.BeginStep(0));
  EXPECT_THAT(model.EndStep(), IsEmpty());
  ASSERT_TRUE(model.BeginStep(1));
  const auto complete = model.EndStep();
  ASSERT_EQ(complete.size(), 1u);
  model.Release(complete[0]);
  EXPECT_EQ(model.CachedTokens({.tokens = 12, .prefix = prefix}), 11);  // one is always computed
  EXPECT_EQ(model.CachedTokens({.tokens = 20, .prefix = prefix}), 12);
  EXPECT_EQ(model.CachedTokens({.tokens = 12, .prefix = prefix, .prefix_round = 1}), 0);
  EXPECT_EQ(PrefillModel(&worker, 0).CachedTokens({.tokens = 12, .cached_share = 0.5}), 6);
}

TEST(PrefixCache, ForgetsTheLeastRecentlyUsedAndAPromptsEndFirst) {
  PrefixCache cache;
  const std::vector<int64_t> one{1, 2, 3}, other{1, 4, 5};
  cache.Put(one, 0, 4);
  cache.Put(other, 0, 4);
  EXPECT_EQ(cache.size(), 4u);
  EXPECT_EQ(cache.Match(other, 0), 3u);
  EXPECT_EQ(cache.Match(one, 0), 2u);
}

// Steps until nothing runs; how many.
int RunAll(DecodeModel* model, double from_s) {
  int steps = 0;
  for (double now_s = from_s; steps < 1000; ++steps) {
    model->Admit();
    const auto seconds = model->BeginStep();
    if (!seconds) break;
    now_s += *seconds;
    model->EndStep(now_s);
  }
  return steps;
}

TEST(DecodeModel, OneTokenAStepAndABlockWhenOneIsFull) {
  const SimulatedWorker worker = Slow(10);
  DecodeModel model(&worker);
  model.EnterLine({.request = 1, .ticket = 1, .tokens = 7, .left = 3, .by_handoff = true});
  EXPECT_THAT(model.Admit(), ElementsAre(1));
  EXPECT_EQ(model.free_blocks(), 8);  // of seven tokens and the next
  EXPECT_FALSE(model.BeginStep()) << "its KV is on the way";
  EXPECT_FALSE(model.Receive(1, 0.25));
  ASSERT_TRUE(model.BeginStep());
  auto end = model.EndStep(1.5);
  EXPECT_THAT(end.other_gaps_s, ElementsAre(1.25));
  ASSERT_TRUE(model.BeginStep());
  EXPECT_EQ(model.free_blocks(), 7);
  end = model.EndStep(2.5);
  EXPECT_EQ(end.common_gaps, 1);
  EXPECT_EQ(end.common_gap_s, 1);
  EXPECT_THAT(end.finished, ElementsAre(1));
  EXPECT_EQ(model.free_blocks(), 10);
  EXPECT_TRUE(model.quiet());
}

TEST(DecodeModel, PrefillsWhatNobodyHandsOver) {
  const SimulatedWorker worker = Slow(10);
  DecodeModel model(&worker);
  model.EnterLine({.request = 1, .ticket = 1, .tokens = 16, .left = 2});
  model.Admit();
  ASSERT_TRUE(model.BeginStep());
  EXPECT_THAT(model.EndStep(1).first_tokens, IsEmpty());  // eight of sixteen
  ASSERT_TRUE(model.BeginStep());
  EXPECT_THAT(model.EndStep(2).first_tokens, ElementsAre(1));
  ASSERT_TRUE(model.BeginStep());
  EXPECT_THAT(model.EndStep(3).finished, ElementsAre(1));
}

TEST(DecodeModel, TheYoungestGivesWay) {
  const SimulatedWorker worker = Slow(6);
  DecodeModel model(&worker);
  for (const int64_t request : {1, 2}) {
    model.EnterLine(
        {.request = request, .ticket = request, .tokens = 7, .left = 10, .by_handoff = true});
    EXPECT_THAT(model.Admit(), ElementsAre(request));
    model.Receive(request, 0);
  }
  RunAll(&model, 0);
  EXPECT_EQ(model.preemptions(), 1);
  EXPECT_TRUE(model.quiet());
  EXPECT_EQ(model.free_blocks(), 6);
}

TEST(DecodeModel, WhatIsTakenAwaySaysHowFarItIs) {
  const SimulatedWorker worker = Slow(10);
  DecodeModel model(&worker);
  model.EnterLine({.request = 1, .ticket = 1, .tokens = 7, .left = 5, .by_handoff = true});
  model.Admit();
  model.Receive(1, 0);
  ASSERT_TRUE(model.BeginStep());
  model.EndStep(1);
  const auto jobs = model.TakeAway();
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0].tokens, 9);
  EXPECT_EQ(jobs[0].left, 3);
  EXPECT_EQ(jobs[0].last_token_s, 1);
  EXPECT_TRUE(model.quiet());
  EXPECT_EQ(model.free_blocks(), 10);
}

}  // namespace
}  // namespace baton::simulator
