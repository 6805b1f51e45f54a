#include "bench/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace baton::bench {
namespace {

constexpr int64_t kCount = 20000;

struct Gaps {
  double mean = 0, cv = 0;
};
Gaps GapsOf(const std::vector<double>& times) {
  double sum = 0, squares = 0, last = 0;
  for (const double at : times) {
    sum += at - last;
    squares += (at - last) * (at - last);
    last = at;
  }
  const auto count = static_cast<double>(times.size());
  const double mean = sum / count;
  return {mean, std::sqrt(squares / count - mean * mean) / mean};
}

std::vector<double> Times(const ArrivalOptions& options) {
  auto times = ArrivalTimes(options, kCount);
  EXPECT_TRUE(times.ok()) << times.status();
  EXPECT_EQ(times->size(), static_cast<size_t>(kCount));
  EXPECT_TRUE(std::ranges::is_sorted(*times));
  return *times;
}

TEST(ArrivalsTest, PoissonHasItsRateAndGapsAsLongAsTheyVary) {
  const Gaps gaps = GapsOf(Times({.rate_per_s = 50}));
  EXPECT_NEAR(gaps.mean, 0.02, 0.001);
  EXPECT_NEAR(gaps.cv, 1, 0.05);
}

TEST(ArrivalsTest, GammaHasItsRateAndItsBursts) {
  for (const double cv : {0.5, 2.0, 4.0}) {
    const Gaps gaps = GapsOf(Times({.kind = ArrivalKind::kGamma, .rate_per_s = 10, .cv = cv}));
    EXPECT_NEAR(gaps.mean, 0.1, 0.015) << cv;
    EXPECT_NEAR(gaps.cv, cv, 0.2 * cv);
  }
}

TEST(ArrivalsTest, OnOffHasItsRateAndItsSilences) {
  const std::vector<double> times =
      Times({.kind = ArrivalKind::kOnOff, .rate_per_s = 20, .on_s = 1, .off_s = 3});
  const Gaps gaps = GapsOf(times);
  EXPECT_NEAR(gaps.mean, 0.05, 0.01);
  EXPECT_GT(gaps.cv, 3);  // Poisson's is 1
}

TEST(ArrivalsTest, ConstantIsEven) {
  const Gaps gaps = GapsOf(Times({.kind = ArrivalKind::kConstant, .rate_per_s = 4}));
  EXPECT_NEAR(gaps.mean, 0.25, 1e-9);
  EXPECT_NEAR(gaps.cv, 0, 1e-3);
}

TEST(ArrivalsTest, ASeedGivesTheSameTimesAgain) {
  EXPECT_EQ(Times({.seed = 7}), Times({.seed = 7}));
  EXPECT_NE(Times({.seed = 7}), Times({.seed = 8}));
}

TEST(ArrivalsTest, NamesAndNumbersThatMakeNoSenseAreRefused) {
  EXPECT_EQ(*ArrivalKindFromName("on-off"), ArrivalKind::kOnOff);
  EXPECT_FALSE(ArrivalKindFromName("pigeon").ok());
  EXPECT_FALSE(ArrivalTimes({.rate_per_s = 0}, 1).ok());
  EXPECT_FALSE(ArrivalTimes({.rate_per_s = std::nan("")}, 1).ok());
  EXPECT_FALSE(ArrivalTimes({.kind = ArrivalKind::kGamma, .cv = 0}, 1).ok());
  EXPECT_FALSE(ArrivalTimes({.kind = ArrivalKind::kOnOff, .on_s = 0}, 1).ok());
}

}  // namespace
}  // namespace baton::bench
