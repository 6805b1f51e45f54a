// The explorer can fail: with each of these bugs in the handoff (mutate.py seeds them into copies
// of the sources), it finds a schedule that breaks a law.

#include <gtest/gtest.h>

#include <string>

#include "common/ids.h"
#include "tests/kv_transfer/active_mutant.h"
#include "tests/kv_transfer/explore.h"

namespace baton::kv_transfer {
namespace {

const char* const kMutants[] = {
    "release_on_send_completion",
    "blocks_reused_before_release",
    "blocks_let_go_while_being_sent",
    "lease_not_renewed",
    "lease_never_over",
    "checksum_unchecked",
    "silence_unnoticed",
    "heartbeats_hide_loss",
    "complete_when_announced",
    "receiver_unchecked",
    "sender_unchecked_by_source",
    "sender_unchecked_by_target",
    "epoch_unchecked",
    "old_epoch_offer_admitted",
    "repeated_offer_admitted",
    "cancel_before_offer_forgotten",
    "older_epoch_goes_on",
    "stale_checksum_announced",
    "upper_layers_announced_with_the_lower",
};

class MutationTest : public testing::TestWithParam<const char*> {
 protected:
  void TearDown() override { active_mutant = ""; }
};

INSTANTIATE_TEST_SUITE_P(Bugs, MutationTest, testing::ValuesIn(kMutants),
                         [](const auto& tested) { return std::string(tested.param); });

TEST_P(MutationTest, TheExplorerFindsTheBug) {
  active_mutant = GetParam();
  const uint64_t first_seed = RandomU64() >> 1;
  // A twentieth of what the explorer runs.
  const Exploration found = Explore(first_seed, 1, 50'000);
  EXPECT_NE(found.violation, "") << "in " << found.schedules << " schedules from seed "
                                 << first_seed;
  RecordProperty("schedules", static_cast<int>(found.schedules));
}

TEST(MutationTest, WithoutABugThereIsNothingToFind) {
  const Exploration found = Explore(RandomU64() >> 1, 1, 5'000);
  EXPECT_EQ(found.violation, "") << "seed " << found.bad_seed;
}

}  // namespace
}  // namespace baton::kv_transfer
