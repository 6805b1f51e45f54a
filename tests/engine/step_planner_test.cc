#include "engine/step_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace baton::engine {
namespace {

using Ranges = std::vector<std::pair<int32_t, int32_t>>;

Ranges Plan(const std::vector<PlanSequence>& sequences, const PlanLimits& limits) {
  Ranges ranges;
  for (const PlannedRange& range : PlanStep(sequences, limits)) {
    ranges.emplace_back(range.sequence, range.tokens);
  }
  return ranges;
}

constexpr PlanSequence kDecode{1, true};
constexpr PlanSequence Prefill(int32_t tokens) { return {tokens, false}; }

TEST(PlanStep, NothingToDoGivesAnEmptyPlan) {
  EXPECT_EQ(Plan({}, {}), Ranges{});
  EXPECT_EQ(Plan({Prefill(0)}, {}), Ranges{});
}

TEST(PlanStep, DecodeGoesFirstAndPrefillFillsTheChunk) {
  const PlanLimits limits{.max_rows = 100, .chunk_tokens = 32, .max_sequences = 8};
  EXPECT_EQ(Plan({Prefill(20), kDecode, Prefill(50), kDecode, Prefill(9)}, limits),
            (Ranges{{0, 20}, {1, 1}, {2, 12}, {3, 1}}));
}

TEST(PlanStep, TheRowBudgetHoldsBothKinds) {
  const PlanLimits limits{.max_rows = 6, .chunk_tokens = 32, .max_sequences = 8};
  EXPECT_EQ(Plan({kDecode, Prefill(50), kDecode}, limits), (Ranges{{0, 1}, {1, 4}, {2, 1}}));
  EXPECT_EQ(
      Plan({kDecode, kDecode, kDecode, kDecode, kDecode, kDecode, kDecode, Prefill(3)}, limits),
      (Ranges{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}}));
}

TEST(PlanStep, TheSequenceBudgetHoldsBothKinds) {
  const PlanLimits limits{.max_rows = 100, .chunk_tokens = 32, .max_sequences = 2};
  EXPECT_EQ(Plan({Prefill(1), Prefill(1), kDecode}, limits), (Ranges{{0, 1}, {2, 1}}));
}

TEST(PlanStep, EveryPlanKeepsItsLimitsAndLeavesNothingUseful) {
  const uint32_t seed = 11;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::vector<PlanSequence> sequences(random() % 12);
    for (PlanSequence& sequence : sequences) {
      sequence.decoding = random() % 2 == 0;
      sequence.pending = sequence.decoding ? 1 : static_cast<int32_t>(random() % 40);
    }
    const PlanLimits limits{static_cast<int32_t>(1 + random() % 40),
                            static_cast<int32_t>(1 + random() % 40),
                            static_cast<int32_t>(1 + random() % 12)};
    int32_t rows = 0, prefill = 0, last = -1;
    std::vector<int32_t> left(sequences.size());
    std::ranges::transform(sequences, left.begin(), &PlanSequence::pending);
    const std::vector<PlannedRange> plan = PlanStep(sequences, limits);
    for (const PlannedRange& range : plan) {
      ASSERT_GT(range.sequence, last);
      last = range.sequence;
      ASSERT_GE(range.tokens, 1);
      ASSERT_LE(range.tokens, sequences[range.sequence].pending);
      rows += range.tokens;
      if (!sequences[range.sequence].decoding) prefill += range.tokens;
      left[range.sequence] -= range.tokens;
    }
    ASSERT_LE(rows, limits.max_rows);
    ASSERT_LE(prefill, limits.chunk_tokens);
    ASSERT_LE(static_cast<int32_t>(plan.size()), limits.max_sequences);
    if (rows == limits.max_rows || static_cast<int32_t>(plan.size()) == limits.max_sequences) {
      continue;
    }
    for (size_t i = 0; i < sequences.size(); ++i) {  // room was left: for nobody who could use it
      ASSERT_TRUE(left[i] == 0 || (!sequences[i].decoding && prefill == limits.chunk_tokens));
    }
  }
}

}  // namespace
}  // namespace baton::engine
