#include "common/clock.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(Clock, ManualClockMovesOnlyWhenTold) {
  ManualClock clock;
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.Now() - start, std::chrono::milliseconds(1500));
  EXPECT_DOUBLE_EQ(Seconds(clock.Now() - start), 1.5);
}

TEST(Clock, SystemClockNeverGoesBack) {
  TimePoint last = SystemClock().Now();
  for (int i = 0; i < 10000; ++i) {
    const TimePoint now = SystemClock().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace baton
