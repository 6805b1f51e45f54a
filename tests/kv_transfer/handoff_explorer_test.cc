// A million schedules of handoffs between two processes (handoff_simulation.h). In each one every
// law must be kept: all blocks come back, one outcome on each side, nobody takes a stranger's
// bytes. A failure prints the seed, which alone repeats it:
//
//   BATON_EXPLORER_SEED=N kv_transfer_explorer_test --gtest_filter='*OneSeed*'

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "common/ids.h"
#include "common/logging.h"
#include "tests/kv_transfer/explore.h"
#include "tests/kv_transfer/handoff_simulation.h"

namespace baton::kv_transfer {
namespace {

// Each of the ten scenarios; a million in all. Sanitizers cost twenty times as much.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSchedules = 1'000;
#else
constexpr uint64_t kSchedules = 101'000;
#endif

class HandoffExplorerTest : public testing::TestWithParam<size_t> {};

INSTANTIATE_TEST_SUITE_P(Scenarios, HandoffExplorerTest,
                         testing::Range(size_t{0}, Scenarios().size()), [](const auto& tested) {
                           return std::string(Scenarios()[tested.param].name);
                         });

TEST_P(HandoffExplorerTest, KeepsEveryLaw) {
  const uint64_t scenarios = Scenarios().size();
  const uint64_t random = RandomU64() >> 1;
  const Exploration found =
      Explore(random - random % scenarios + GetParam(), scenarios, kSchedules);
  EXPECT_EQ(found.violation, "") << "seed " << found.bad_seed << ", which repeats it:\n"
                                 << "BATON_EXPLORER_SEED=" << found.bad_seed
                                 << " kv_transfer_explorer_test --gtest_filter='*OneSeed*'";
  if (!found.violation.empty()) return;
  // The schedules were worth it: handoffs succeed, and fail where they may.
  EXPECT_GT(found.succeeded, 0);
  if (Scenarios()[GetParam()].fair) {
    EXPECT_EQ(found.succeeded, found.handoffs);
  } else {
    EXPECT_LT(found.succeeded, found.handoffs);
  }
  RecordProperty("handoffs", static_cast<int>(found.handoffs));
}

// Not by chance: each fault at each step of a schedule, and each two of them.
TEST(HandoffExplorerTest, EveryTwoFaultsAtEveryTwoSteps) {
  using Fault = HandoffSimulation::Fault;
  InitLogging("simulated", LogLevel::kError);
  const uint64_t scenarios = Scenarios().size(), random = RandomU64() >> 1;
  const uint64_t seed = random - random % scenarios;  // of FairInOrder
  HandoffSimulation undisturbed(seed);
  ASSERT_EQ(undisturbed.Run(), "") << "seed " << seed;
  const uint64_t stride = kSchedules > 10'000 ? 1 : 7;
  const uint64_t steps = std::min<uint64_t>(undisturbed.steps(), 60);
  for (uint64_t first = 1; first <= steps; first += stride) {
    for (uint64_t second = first; second <= steps; second += stride) {
      for (int two = 0; two < HandoffSimulation::kFaults * HandoffSimulation::kFaults; ++two) {
        HandoffSimulation simulation(seed);
        simulation.Plan(first, static_cast<Fault>(two / HandoffSimulation::kFaults));
        simulation.Plan(second, static_cast<Fault>(two % HandoffSimulation::kFaults));
        ASSERT_EQ(simulation.Run(), "")
            << "seed " << seed << " with faults " << two / HandoffSimulation::kFaults << " and "
            << two % HandoffSimulation::kFaults << " at steps " << first << " and " << second;
      }
    }
  }
}

TEST(HandoffExplorerTest, OneSeed) {
  const char* const asked = std::getenv("BATON_EXPLORER_SEED");
  const uint64_t seed = asked == nullptr ? RandomU64() >> 1 : std::strtoull(asked, nullptr, 10);
  if (asked == nullptr) InitLogging("simulated", LogLevel::kError);
  HandoffSimulation first(seed, /*traced=*/true);
  const std::string violation = first.Run();
  EXPECT_EQ(violation, "") << "seed " << seed << ", scenario " << ScenarioOf(seed).name << "\n"
                           << first.Trace();
  // A seed is a schedule: the same again, to the last line.
  HandoffSimulation second(seed, /*traced=*/true);
  EXPECT_EQ(second.Run(), violation);
  EXPECT_EQ(second.Trace(), first.Trace());
  EXPECT_NE(first.Trace(), "");
}

}  // namespace
}  // namespace baton::kv_transfer
