#include "prefill_worker/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace baton::prefill_worker {
namespace {

constexpr Limits kLimits{.chunk_tokens = 100, .max_batch = 4};

TEST(MayStart, AStepAheadAndNoFurther) {
  EXPECT_TRUE(MayStart({}, kLimits));
  EXPECT_TRUE(MayStart(std::vector{199}, kLimits)) << "its last chunk is the one after next";
  EXPECT_FALSE(MayStart(std::vector{200}, kLimits));
  EXPECT_FALSE(MayStart(std::vector{150, 50}, kLimits));
  EXPECT_TRUE(MayStart(std::vector{1, 1, 1}, kLimits));
  EXPECT_FALSE(MayStart(std::vector{1, 1, 1, 1}, kLimits)) << "no more than one batch";
}

TEST(PlanChunks, TheOldestTakesWhatItCanAndTheRestIsForTheNext) {
  const auto plan = PlanChunks(std::vector{30, 200, 10}, kLimits);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].sequence, 0);
  EXPECT_EQ(plan[0].tokens, 30);
  EXPECT_EQ(plan[1].sequence, 1);
  EXPECT_EQ(plan[1].tokens, 70);
}

TEST(PlanChunks, EveryPromptIsComputedInOrderWhateverTheSizes) {
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
      ASSERT_FALSE(plan.empty());
      int32_t rows = 0;
      for (const auto& range : plan) {
        const auto index = static_cast<size_t>(range.sequence);
        for (size_t older = 0; older < index; ++older) {
          ASSERT_EQ(pending[older], 0) << "prompt " << index << " before prompt " << older;
        }
        pending[index] -= range.tokens;
        ASSERT_GE(pending[index], 0);
        rows += range.tokens;
      }
      ASSERT_LE(rows, limits.chunk_tokens);
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
