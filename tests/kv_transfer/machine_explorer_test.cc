// Many schedules of two machines under rising adversity. Each must keep every law; a failure prints
// the seed that repeats it.

#include <gtest/gtest.h>

#include "common/ids.h"
#include "tests/kv_transfer/handoff_simulation.h"

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;

struct Tally {
  int target_ok = 0, source_ok = 0;
};

Tally Explore(int schedules, const Adversity& adversity) {
  const uint64_t first_seed = RandomU64();
  SCOPED_TRACE(testing::Message() << "first seed " << first_seed);
  Tally tally;
  for (int i = 0; i < schedules; ++i) {
    const uint64_t seed = first_seed + static_cast<uint64_t>(i);
    HandoffSimulation simulation(seed, adversity);
    const std::string violation = simulation.Run();
    EXPECT_EQ(violation, "") << "seed " << seed;
    if (!violation.empty()) break;
    tally.target_ok += simulation.target_ok();
    tally.source_ok += simulation.source_ok();
  }
  return tally;
}

constexpr int kSchedules = 5'000;

TEST(MachineExplorerTest, AGoodNetworkAlwaysSucceedsInWhateverOrder) {
  const Tally tally = Explore(kSchedules, {.longest_delay = milliseconds(15)});
  EXPECT_EQ(tally.target_ok, kSchedules);
  EXPECT_EQ(tally.source_ok, kSchedules);
}

TEST(MachineExplorerTest, LossRepetitionAndDelayOfMessages) {
  const Tally tally =
      Explore(kSchedules, {.loss = 5, .duplication = 10, .longest_delay = milliseconds(40)});
  EXPECT_GT(tally.target_ok, 0);
  EXPECT_LT(tally.target_ok, kSchedules);
}

TEST(MachineExplorerTest, WorkersThatCancelRefuseOrDoNotAnswer) {
  const Tally tally = Explore(
      kSchedules, {.source_cancels = 25, .target_cancels = 25, .refuses = 10, .never_answers = 5});
  EXPECT_GT(tally.target_ok, 0);
  EXPECT_LT(tally.target_ok, kSchedules);
}

TEST(MachineExplorerTest, DamagedDataIsNeverBelieved) {
  const Tally tally = Explore(kSchedules, {.damage = 10});
  EXPECT_GT(tally.target_ok, 0);
  EXPECT_LT(tally.target_ok, kSchedules);
}

TEST(MachineExplorerTest, EverythingAtOnce) {
  const Tally tally = Explore(kSchedules, {.loss = 3,
                                           .duplication = 5,
                                           .damage = 2,
                                           .longest_delay = milliseconds(60),
                                           .source_cancels = 15,
                                           .target_cancels = 15,
                                           .refuses = 5,
                                           .never_answers = 3,
                                           .peer_lost = 15});
  EXPECT_GT(tally.target_ok, 0);
  EXPECT_LT(tally.target_ok, kSchedules);
}

}  // namespace
}  // namespace baton::kv_transfer
