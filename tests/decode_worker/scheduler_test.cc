#include "decode_worker/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace baton::decode_worker {
namespace {

constexpr RunningView Decoding(int64_t served) {
  return {.pending = 1, .decoding = true, .served_step = served};
}
constexpr RunningView Prefilling(int32_t pending, int64_t served = 0) {
  return {.pending = pending, .decoding = false, .served_step = served};
}

std::vector<std::pair<int32_t, int32_t>> Plan(std::vector<RunningView> running, Limits limits) {
  std::vector<std::pair<int32_t, int32_t>> plan;
  for (const auto& range : PlanBatch(running, limits))
    plan.push_back({range.sequence, range.tokens});
  return plan;
}
using Pairs = std::vector<std::pair<int32_t, int32_t>>;

TEST(PlanBatch, DecodesAllAndPrefillsAChunkBesideThem) {
  EXPECT_EQ(Plan({}, {}), Pairs());
  EXPECT_EQ(Plan({Decoding(1), Prefilling(500), Decoding(1), Prefilling(9)},
                 {.chunk_tokens = 256, .max_batch = 8}),
            (Pairs{{0, 1}, {1, 256}, {2, 1}}));
  EXPECT_EQ(Plan({Prefilling(100), Prefilling(100), Prefilling(100)},
                 {.chunk_tokens = 150, .max_batch = 8}),
            (Pairs{{0, 100}, {1, 50}}));
}

TEST(PlanBatch, ThoseThatWaitedLongestGoFirst) {
  EXPECT_EQ(Plan({Decoding(5), Decoding(3), Decoding(4), Decoding(3)},
                 {.chunk_tokens = 8, .max_batch = 2}),
            (Pairs{{1, 1}, {3, 1}}));
}

TEST(PlanBatch, KeepsAPlaceForPrefill) {
  EXPECT_EQ(Plan({Decoding(5), Decoding(3), Prefilling(20), Decoding(4)},
                 {.chunk_tokens = 8, .max_batch = 3}),
            (Pairs{{1, 1}, {2, 8}, {3, 1}}));
}

TEST(PlanBatch, TakesTurnsWhenThereIsOnePlace) {
  const Limits one{.chunk_tokens = 8, .max_batch = 1};
  EXPECT_EQ(Plan({Decoding(5), Prefilling(20, 4)}, one), (Pairs{{1, 8}}));
  EXPECT_EQ(Plan({Decoding(5), Prefilling(12, 6)}, one), (Pairs{{0, 1}}));
}

// Nobody waits longer than it takes to serve everybody else once.
TEST(PlanBatch, StarvesNobodyWhateverTheMix) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 100; ++round) {
    const Limits limits{.chunk_tokens = static_cast<int32_t>(1 + random() % 32),
                        .max_batch = static_cast<int32_t>(1 + random() % 6)};
    std::vector<RunningView> running(1 + random() % 20);
    for (RunningView& view : running) {
      view = random() % 3 != 0 ? Decoding(0) : Prefilling(static_cast<int32_t>(1 + random() % 100));
    }
    const auto everybody = static_cast<int64_t>(running.size());
    int64_t last_prefill = 0;
    for (int64_t step = 1; step <= 400; ++step) {
      const auto plan = PlanBatch(running, limits);
      ASSERT_FALSE(plan.empty());
      ASSERT_LE(plan.size(), static_cast<size_t>(limits.max_batch));
      for (const auto& range : plan) {
        RunningView& view = running[static_cast<size_t>(range.sequence)];
        ASSERT_LE(range.tokens, view.pending);
        view.served_step = step;
        if (view.decoding) continue;
        last_prefill = step;
        view.pending -= range.tokens;
        if (view.pending == 0) view = Decoding(step);
      }
      const bool prefills = std::any_of(running.begin(), running.end(),
                                        [](const RunningView& view) { return !view.decoding; });
      if (!prefills) last_prefill = step;
      ASSERT_LE(step - last_prefill, everybody) << "no prefill until step " << step;
      for (const RunningView& view : running) {
        if (!view.decoding) continue;
        ASSERT_LE(step - view.served_step, 2 * everybody + 1) << "step " << step;
      }
    }
  }
}

TEST(MayJoin, LeavesABlockForEachThatRuns) {
  EXPECT_TRUE(MayJoin(10, 10, 0));
  EXPECT_FALSE(MayJoin(11, 10, 0));
  EXPECT_TRUE(MayJoin(7, 10, 3));
  EXPECT_FALSE(MayJoin(8, 10, 3));
}

}  // namespace
}  // namespace baton::decode_worker
