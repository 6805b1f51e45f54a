#include "router/retry_budget.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint After(Duration since_start) { return TimePoint(seconds(100) + since_start); }

int64_t TakeAll(RetryBudget& budget, TimePoint now, int64_t live) {
  int64_t taken = 0;
  while (taken < 1'000'000 && budget.Take(now, live)) ++taken;
  return taken;
}

TEST(RetryBudgetTest, AFewMayAlways) {
  RetryBudget budget(0);
  EXPECT_EQ(TakeAll(budget, After(seconds(0)), 500), RetryBudget::kFloor);
}

TEST(RetryBudgetTest, AShareOfThoseLiveAndThoseThatCameLately) {
  RetryBudget budget(0.5);
  for (int i = 0; i < 100; ++i) budget.OnRequest(After(milliseconds(40 * i)));
  EXPECT_EQ(TakeAll(budget, After(seconds(5)), 60), RetryBudget::kFloor + 80);
  EXPECT_FALSE(budget.Take(After(seconds(9)), 60));
}

// The poison request: whoever takes it dies, and with it all streams there. After the window it may
// go on, at that rate.
TEST(RetryBudgetTest, WhatWasTakenCountsForTheWindowOnly) {
  RetryBudget budget(1);
  for (int window = 0; window < 5; ++window) {
    const TimePoint now = After(window * (RetryBudget::kWindow + seconds(1)));
    EXPECT_EQ(TakeAll(budget, now, 10), RetryBudget::kFloor + 10);
    EXPECT_EQ(TakeAll(budget, now + seconds(8), 10), 0);
  }
}

}  // namespace
}  // namespace baton::router
