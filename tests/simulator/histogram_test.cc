#include "simulator/histogram.h"

#include <gtest/gtest.h>

namespace baton::simulator {
namespace {

TEST(Histogram, PercentilesToOnePercent) {
  Histogram histogram;
  for (int i = 1; i <= 10'000; ++i) histogram.Add(i * 1e-4);
  EXPECT_NEAR(histogram.Percentile(0.5), 0.5, 0.006);
  EXPECT_NEAR(histogram.Percentile(0.99), 0.99, 0.011);
  EXPECT_NEAR(histogram.ShareWithin(0.25), 0.25, 0.01);
  EXPECT_NEAR(histogram.mean(), 0.50005, 1e-9);
  EXPECT_EQ(Histogram().Percentile(0.5), 0);
  Histogram zeros;
  zeros.Add(0, 10);
  EXPECT_EQ(zeros.Percentile(0.99), 0);
}

}  // namespace
}  // namespace baton::simulator
