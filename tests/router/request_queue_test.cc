#include "router/request_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/error_code.h"

namespace baton::router {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr TimePoint kBeginning{};

QueuedRequest Place(uint64_t handle, Duration deadline = seconds(600)) {
  return {handle, "", Priority::kNormal, 100, kBeginning + deadline};
}

TEST(DrainRateTest, TellsHowLongSoManyTake) {
  DrainRate rate;
  EXPECT_EQ(rate.TimeFor(100, kBeginning), seconds(1));  // nothing is known yet
  TimePoint now = kBeginning;
  for (int i = 0; i < 200; ++i) rate.Count(now += std::chrono::milliseconds(100));
  EXPECT_NEAR(Seconds(rate.TimeFor(50, now)), 5, 0.5);
  EXPECT_NEAR(Seconds(rate.TimeFor(0, now)), 0, 1e-9);
  EXPECT_EQ(rate.TimeFor(1'000'000, now), seconds(60));
  EXPECT_GT(rate.TimeFor(50, now + seconds(20)), seconds(20));  // it has stopped
}

TEST(RequestQueueTest, AFullQueueRefusesWithTheTimeThatItTakes) {
  RequestQueue queue(3);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(queue.CheckRoom(kBeginning).ok());
    EXPECT_TRUE(queue.Push(Place(i), kBeginning).ok());
  }
  TimePoint now = kBeginning;
  for (int i = 0; i < 100; ++i) queue.CountEnding(now += seconds(1));
  const absl::Status full = queue.CheckRoom(now);
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_THAT(std::string(full.message()), HasSubstr("3 requests wait for the fleet"));
  ASSERT_TRUE(RetryAfter(full).has_value());
  EXPECT_NEAR(Seconds(*RetryAfter(full)), 3, 0.5);
  EXPECT_TRUE(absl::IsResourceExhausted(queue.Push(Place(9), now)));
  EXPECT_TRUE(queue.Pop().has_value());
  EXPECT_TRUE(queue.CheckRoom(now).ok());
}

TEST(RequestQueueTest, ARequestWhoseTurnWouldComeTooLateIsRefusedAtOnce) {
  RequestQueue queue(0);
  TimePoint now = kBeginning;
  for (int i = 0; i < 100; ++i) queue.CountEnding(now += seconds(1));
  for (uint64_t i = 0; i < 20; ++i) EXPECT_TRUE(queue.Push(Place(i), now).ok());
  QueuedRequest hasty = Place(50);
  hasty.deadline = now + seconds(5);
  const absl::Status refused = queue.Push(hasty, now);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("deadline is in 5.0 s"));
  hasty.deadline = now + seconds(60);
  EXPECT_TRUE(queue.Push(hasty, now).ok());
}

TEST(RequestQueueTest, AnothersFloodDoesNotMakeATurnLate) {
  RequestQueue queue(0);
  TimePoint now = kBeginning;
  for (int i = 0; i < 100; ++i) queue.CountEnding(now += seconds(1));
  for (uint64_t i = 0; i < 100; ++i) {
    QueuedRequest flood = Place(i);
    flood.tenant = "flood";
    flood.tokens = 2000;
    EXPECT_TRUE(queue.Push(flood, now).ok());
  }
  QueuedRequest hasty = Place(500);
  hasty.tenant = "quiet";
  hasty.deadline = now + seconds(10);
  EXPECT_TRUE(queue.Push(hasty, now).ok()) << "it is the second or third";
  hasty.handle = 501;
  hasty.tenant = "flood";
  hasty.tokens = 2000;
  EXPECT_TRUE(absl::IsResourceExhausted(queue.Push(hasty, now)));
}

TEST(RequestQueueTest, WhatMovesIsQueuedInAnyCase) {
  RequestQueue queue(1);
  EXPECT_TRUE(queue.Push(Place(1), kBeginning).ok());
  queue.PushAgain(Place(2));
  EXPECT_EQ(queue.Pop(), 1u);
  EXPECT_EQ(queue.Pop(), 2u);
}

TEST(RequestQueueTest, ShowsWhatWaits) {
  RequestQueue queue(0);
  EXPECT_TRUE(queue.empty());
  ASSERT_TRUE(queue.Push(Place(1), kBeginning).ok());
  EXPECT_FALSE(queue.empty());
  const std::string text = queue.MetricsText();
  EXPECT_THAT(text, HasSubstr("baton_queue_requests{priority=\"normal\"} 1"));
  EXPECT_THAT(text, HasSubstr("baton_queue_prompt_tokens 100"));
  EXPECT_THAT(queue.TakeExpired(kBeginning + seconds(600)), testing::ElementsAre(1));
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace baton::router
