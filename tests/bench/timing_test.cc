#include "bench/timing.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace baton::bench {
namespace {

TEST(TimingTest, PercentileIsTheNearestRank) {
  EXPECT_EQ(Percentile({7}, 0.99), 7);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.51), 3);
  std::vector<double> hundred;
  for (int i = 100; i > 0; --i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 0.99), 99);
  EXPECT_EQ(Percentile(hundred, 1), 100);
}

TEST(TimingTest, Median) {
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 5}), 5);
  EXPECT_EQ(Median({4, 1, 2, 100}), 3);
}

TEST(TimingTest, CallsOnceUncountedAndThenOnceARepeat) {
  int calls = 0;
  EXPECT_GT(MedianSeconds({.count = 3, .round_ms = 0}, [&] { ++calls; }), 0);
  EXPECT_EQ(calls, 1 + 3);
}

TEST(TimingTest, CallsBetweenMeasurements) {
  std::string order;
  MedianSeconds(
      {.count = 2, .round_ms = 0}, [&] { order += 'r'; }, [&] { order += 'b'; });
  EXPECT_EQ(order, "rbrbrb");
}

TEST(TimingTest, RepeatsCallsUntilTheRoundIsOver) {
  int calls = 0;
  const double seconds = MedianSeconds({.count = 1, .round_ms = 10}, [&] {
    ++calls;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  EXPECT_GT(calls, 2);
  EXPECT_GE(seconds, 1e-3);  // of one call
  EXPECT_GE(seconds * (calls - 1), 10e-3);
}

TEST(TimingTest, AStopIsCancelled) {
  EXPECT_TRUE(CheckStop(nullptr).ok());
  EXPECT_TRUE(CheckStop([] { return false; }).ok());
  EXPECT_EQ(CheckStop([] { return true; }).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace baton::bench
