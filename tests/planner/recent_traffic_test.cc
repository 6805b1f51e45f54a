#include "planner/recent_traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::planner {
namespace {

using testing::HasSubstr;

TEST(RecentTraffic, TellsTheLastRequestsAsAWorkload) {
  RecentTraffic traffic({.most_requests = 4, .window_s = 100});
  for (int i = 0; i < 6; ++i) {
    const auto request = static_cast<uint64_t>(i);
    traffic.OnArrival(i, request, 100 + i);
    traffic.OnFirstToken(request, 50);
    if (i < 5) traffic.OnEnd(request, 10);
  }
  traffic.OnProgress(5, 30);
  traffic.OnEnd(0, 10);  // forgotten
  const auto workload = traffic.Window(7, 2);
  ASSERT_TRUE(workload.ok()) << workload.status();
  ASSERT_EQ(workload->requests.size(), 4u);
  EXPECT_EQ(workload->requests[0].input_tokens, 102);
  EXPECT_EQ(workload->requests[0].output_tokens, 10);
  EXPECT_EQ(workload->requests[3].output_tokens, 60);  // none became so long: as much again
  EXPECT_DOUBLE_EQ(workload->requests[3].cached_share, 50.0 / 105);
  EXPECT_DOUBLE_EQ(workload->arrivals.per_s, 4 / 5.0);
  EXPECT_GT(workload->arrivals.scv, 0);
}

TEST(RecentTraffic, OneThatGoesOnIsTakenForTheMean) {
  RecentTraffic traffic({});
  traffic.OnArrival(0, 1, 10);
  traffic.OnArrival(1, 2, 10);
  traffic.OnFirstToken(1, 0);
  traffic.OnFirstToken(2, 0);
  traffic.OnEnd(1, 80);
  EXPECT_EQ(traffic.Window(2, 2)->requests[1].output_tokens, 80);
}

TEST(RecentTraffic, InAQueueThatGrowsThoseThatEndedTellTheLengths) {
  RecentTraffic traffic({.most_requests = 3});
  for (uint64_t i = 0; i < 10; ++i) traffic.OnArrival(static_cast<double>(i), i, 10);
  for (uint64_t i = 0; i < 4; ++i) traffic.OnEnd(i, i % 2 == 0 ? 100 : 300);  // forgotten
  const auto workload = traffic.Window(10, 2);
  ASSERT_TRUE(workload.ok()) << workload.status();
  ASSERT_EQ(workload->requests.size(), 3u);
  EXPECT_EQ(workload->requests[0].output_tokens + workload->requests[1].output_tokens, 400);
}

TEST(RecentTraffic, WhereManyComeTheOlderOnesDoNotCount) {
  RecentTraffic traffic({.enough_requests = 5, .short_window_s = 10});
  for (uint64_t i = 0; i < 40; ++i) traffic.OnArrival(static_cast<double>(i), i, i < 29 ? 10 : 900);
  traffic.OnEnd(39, 5);
  const auto workload = traffic.Window(39, 2);
  EXPECT_EQ(workload->requests.size(), 11u);
  EXPECT_EQ(workload->MeanInput(), 900);
  EXPECT_EQ(traffic.Window(48, 2)->requests.size(), 5u);  // few: older ones count too
}

// Short answers, then long ones: all that ended is of before.
TEST(RecentTraffic, ThatAnswersHaveGrownShowsBeforeOneHasEnded) {
  RecentTraffic traffic({.newest_requests = 20, .newest_s = 2});
  for (uint64_t i = 0; i < 100; ++i) {
    traffic.OnArrival(0.1 * static_cast<double>(i), i, 4000);
    traffic.OnEnd(i, 40);
  }
  for (uint64_t i = 100; i < 140; ++i) traffic.OnArrival(0.1 * static_cast<double>(i), i, 400);
  for (uint64_t i = 100; i < 130; ++i) {
    traffic.OnProgress(i, static_cast<int32_t>(5 * (140 - i)));  // up to 200
  }
  const auto newest = traffic.Newest(14, 2);
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->requests.size(), 20u);
  EXPECT_EQ(newest->MeanInput(), 400);
  EXPECT_GT(newest->MeanOutput(), 90);
  const auto since = traffic.Window(14, 2, 9.95);
  ASSERT_TRUE(since.ok()) << since.status();
  EXPECT_EQ(since->requests.size(), 40u);
  EXPECT_GT(since->MeanOutput(), 200);
  EXPECT_EQ(traffic.WaitingAt(14).requests, 10);
  EXPECT_NEAR(traffic.WaitingAt(14).longest_s, 1, 1e-9);
  for (uint64_t i = 130; i < 139; ++i) traffic.OnGone(i);
  EXPECT_EQ(traffic.WaitingAt(14).requests, 1);
}

TEST(RecentTraffic, SaysWhatIsMissing) {
  RecentTraffic traffic({.most_requests = 10, .window_s = 5});
  EXPECT_THAT(std::string(traffic.Window(0, 3).status().message()), HasSubstr("0 requests in the"));
  for (int i = 0; i < 3; ++i) traffic.OnArrival(0, static_cast<uint64_t>(i), 10);
  EXPECT_THAT(std::string(traffic.Window(1, 3).status().message()), HasSubstr("has got a token"));
  traffic.OnFirstToken(0, 20);  // more than the prompt: not believed
  const auto workload = traffic.Window(1, 3);
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_DOUBLE_EQ(workload->requests[0].cached_share, 0.9);
  EXPECT_THAT(std::string(traffic.Window(6, 3).status().message()), HasSubstr("0 requests in the"));
}

}  // namespace
}  // namespace baton::planner
