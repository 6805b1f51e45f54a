#include "cli/prometheus_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace baton::cli {
namespace {

using testing::DoubleEq;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kText[] =
    "# HELP a Something.\n# TYPE a counter\n"
    "a 1.5\n"
    "a{x=\"1\"} 2\n"
    "a{x=\"2\",y=\"q\\\"\\\\\\nz\"} 3e1\n"
    "no_value{x=\"1\"}\nbroken{x=\"1 4\n{} 1\n\n"
    "h_bucket{m=\"p\",le=\"0.1\"} 1\nh_bucket{m=\"p\",le=\"+Inf\"} 3\n"
    "h_bucket{m=\"q\",le=\"0.1\"} 4\nh_bucket{m=\"q\",le=\"+Inf\"} 5\n"
    "h_sum{m=\"p\"} 7";

TEST(MetricsTextTest, ReadsSamplesAndPassesOverTheRest) {
  const Metrics metrics(kText);
  ASSERT_THAT(metrics.Of("a"), SizeIs(3));
  EXPECT_EQ(metrics.Of("a")[2].labels.at("y"), "q\"\\\nz");
  EXPECT_THAT(metrics.Sum("a"), DoubleEq(33.5));
  EXPECT_THAT(metrics.Sum("a", {{"x", "1"}}), DoubleEq(2));
  EXPECT_THAT(metrics.Sum("a", {{"z", "1"}}), DoubleEq(0));
  EXPECT_THAT(metrics.Sum("h_sum"), DoubleEq(7)) << "without a line's end";
  EXPECT_THAT(metrics.Of("no_value"), IsEmpty());
  EXPECT_THAT(metrics.Of("broken"), IsEmpty());
  EXPECT_TRUE(Metrics("").empty());
  EXPECT_TRUE(Metrics("\n{{{\"=\"\n").empty());
}

TEST(MetricsTextTest, BucketsAreOfAllSeries) {
  const auto buckets = Metrics(kText).Buckets("h");
  ASSERT_THAT(buckets, SizeIs(2));
  EXPECT_EQ(buckets.at(0.1), 5);
  EXPECT_EQ(buckets.at(INFINITY), 8);
}

TEST(QuantilesTest, AreSpreadEvenlyWithinABucket) {
  const Quantiles of = QuantilesOf({{1, 0}, {2, 100}, {4, 100}, {INFINITY, 100}});
  EXPECT_EQ(of.count, 100);
  EXPECT_DOUBLE_EQ(of.p50, 1.5);
  EXPECT_DOUBLE_EQ(of.p95, 1.95);
  EXPECT_DOUBLE_EQ(QuantilesOf({{1, 50}, {2, 60}, {INFINITY, 100}}).p99, 2) << "at least that";
  EXPECT_EQ(QuantilesOf({}).count, 0);
  EXPECT_EQ(QuantilesOf({{1, 0}, {INFINITY, 0}}).p50, 0);
}

TEST(QuantilesTest, SinceIsWhatCameBetween) {
  const auto since = Since({{1, 5}, {2, 6}}, {{1, 7}, {2, 9}});
  EXPECT_EQ(since.at(1), 2);
  EXPECT_EQ(since.at(2), 3);
  EXPECT_THAT(Since({{1, 5}}, {{1, 4}}), IsEmpty()) << "it began anew";
}

}  // namespace
}  // namespace baton::cli
