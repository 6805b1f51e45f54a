#include "prefill_worker/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace baton::prefill_worker {
namespace {

constexpr Limits kLimits{.chunk_tokens = 100, .max_batch = 4};

constexpr int32_t kAverage = 150;

TEST(MayStart, AStepAheadAndNoFurther) {
  EXPECT_TRUE(MayStart({}, kAverage, kLimits));
  EXPECT_TRUE(MayStart(std::vector{199}, kAverage, kLimits)) << "its last chunk is the one after";
  EXPECT_FALSE(MayStart(std::vector{200}, kAverage, kLimits));
  EXPECT_FALSE(MayStart(std::vector{150, 50}, kAverage, kLimits));
  EXPECT_TRUE(MayStart(std::vector{1, 1, 1}, kAverage, kLimits));
  EXPECT_FALSE(MayStart(std::vector{1, 1, 1, 1}, kAverage, kLimits)) << "no more than one batch";
}

TEST(MayStart, AShortPromptDoesNotWaitForALongOne) {
  EXPECT_FALSE(MayStart(std::vector{599}, kAverage, kLimits));
  EXPECT_TRUE(MayStart(std::vector{600}, kAverage, kLimits));
  EXPECT_TRUE(MayPass(std::vector{600}, kAverage, kLimits));
  EXPECT_FALSE(MayPass(std::vector{100}, kAverage, kLimits)) << "nobody is long beside it";
  EXPECT_FALSE(MayPass(std::vector{100'000, 150, 150}, kAverage, kLimits))
      << "others are before it";
  EXPECT_FALSE(MayPass(std::vector{100'000, 1, 1, 1}, kAverage, kLimits));
}

TEST(PlanChunks, ALongPromptSharesWithShortOnes) {
  auto plan = PlanChunks(std::vector{100'000, 150, 40}, kLimits);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].tokens, 50);
  EXPECT_EQ(plan[1].tokens, 50);
  plan = PlanChunks(std::vector{100'000, 10}, kLimits);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].tokens, 90) << "the short one has no use for the rest";
  EXPECT_EQ(plan[1].tokens, 10);
  plan = PlanChunks(std::vector{100'000, 90'000}, kLimits);
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].tokens, 100) << "equals go one after the other";
}

TEST(PlanChunks, OneTokenAStepIsEnoughForEverybodysTurn) {
  const Limits tiny{.chunk_tokens = 1, .max_batch = 4};
  std::vector<int32_t> pending = {100, 3};
  for (int steps = 103; steps > 0; --steps) {
    const auto plan = PlanChunks(pending, tiny);
    ASSERT_EQ(plan.size(), 1u);
    pending[static_cast<size_t>(plan[0].sequence)] -= plan[0].tokens;
  }
  EXPECT_EQ(pending, (std::vector<int32_t>{0, 0}));
}

TEST(PlanChunks, TheOldestTakesWhatItCanAndTheRestIsForTheNext) {
  const auto plan = PlanChunks(std::vector{30, 200, 60}, kLimits);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].sequence, 0);
  EXPECT_EQ(plan[0].tokens, 30);
  EXPECT_EQ(plan[1].sequence, 1);
  EXPECT_EQ(plan[1].tokens, 70);
}

// Whether a prompt leaves some of the step to one behind it that is much shorter.
bool SharesWithAShorter(const std::vector<int32_t>& pending, size_t index) {
  return std::any_of(pending.begin() + static_cast<std::ptrdiff_t>(index) + 1, pending.end(),
                     [&](int32_t other) { return other > 0 && pending[index] / kLong >= other; });
}

TEST(PlanChunks, EqualPromptsAreComputedInOrderAndEveryStepIsFull) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    const Limits limits{.chunk_tokens = static_cast<int32_t>(1 + random() % 64),
                        .max_batch = static_cast<int32_t>(1 + random() % 8)};
    std::vector<int32_t> pending(1 + random() % 10);
    for (int32_t& tokens : pending) tokens = static_cast<int32_t>(1 + random() % 300);
    while (std::accumulate(pending.begin(), pending.end(), 0) > 0) {
      const auto plan = PlanChunks(pending, limits);
      const std::vector<int32_t> before = pending;
      int32_t possible = 0, prompts = 0;
      for (const int32_t tokens : pending) {
        if (tokens > 0 && prompts++ < limits.max_batch) possible += tokens;
      }
      int32_t rows = 0;
      for (const auto& range : plan) {
        const auto index = static_cast<size_t>(range.sequence);
        for (size_t older = 0; older < index; ++older) {
          ASSERT_TRUE(pending[older] == 0 || SharesWithAShorter(before, older))
              << "prompt " << index << " before prompt " << older;
        }
        pending[index] -= range.tokens;
        ASSERT_GE(pending[index], 0);
        rows += range.tokens;
      }
      ASSERT_EQ(rows, std::min(possible, limits.chunk_tokens));
      ASSERT_LE(plan.size(), static_cast<size_t>(limits.max_batch));
    }
  }
}

TEST(WorthReading, ComparesTheDiskWithTheProcessor) {
  // 1,000 tokens of 20 kB at 100 MB/s: 0.2 s.
  DiskRead read{.tokens = 1000,
                .kv_bytes_per_token = 20'000,
                .bytes_before = 0,
                .disk_bytes_per_s = 1e8,
                .prefill_tokens_per_s = 4000};
  EXPECT_EQ(ComputeSeconds(read), 0.25);
  EXPECT_TRUE(WorthReading(read));
  read.bytes_before = 6'000'000;  // 0.06 s more
  EXPECT_FALSE(WorthReading(read));
  read.bytes_before = 0;
  read.prefill_tokens_per_s = 5100;
  EXPECT_FALSE(WorthReading(read));
}

TEST(WorthReading, TriesWhatWasNotMeasured) {
  DiskRead read{.tokens = 1, .kv_bytes_per_token = 1 << 30, .disk_bytes_per_s = 1};
  EXPECT_FALSE(ComputeSeconds(read).has_value());
  EXPECT_TRUE(WorthReading(read));
  read.prefill_tokens_per_s = 1e6;
  EXPECT_FALSE(WorthReading(read));
  read.disk_bytes_per_s = 0;
  EXPECT_TRUE(WorthReading(read));
  read.tokens = 0;
  EXPECT_FALSE(WorthReading(read));
}

}  // namespace
}  // namespace baton::prefill_worker
