#include "router/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace baton::router {
namespace {

using testing::ElementsAre;

QueuedRequest Waiting(uint64_t handle, std::string tenant, int64_t tokens,
                      Priority priority = Priority::kNormal, int64_t deadline_s = 1000) {
  return {handle, std::move(tenant), priority, tokens,
          TimePoint{} + std::chrono::seconds(deadline_s)};
}

std::vector<uint64_t> PopAll(FairQueue& queue) {
  std::vector<uint64_t> order;
  while (const std::optional<uint64_t> handle = queue.Pop()) order.push_back(*handle);
  return order;
}

TEST(FairQueueTest, OneTenantsEqualRequestsGoInTheOrderOfTheirArrival) {
  FairQueue queue;
  for (uint64_t i = 1; i <= 5; ++i) queue.Push(Waiting(i, "a", 300));
  EXPECT_EQ(queue.size(), 5u);
  EXPECT_EQ(queue.tokens(), 1500);
  EXPECT_THAT(PopAll(queue), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.tokens(), 0);
}

// 1,000 short requests of one tenant come before 10 of another: the other still gets half.
TEST(FairQueueTest, AFloodOfOneTenantDoesNotDelayAnother) {
  FairQueue queue;
  for (uint64_t i = 0; i < 1000; ++i) queue.Push(Waiting(i, "flood", 1000));
  for (uint64_t i = 1000; i < 1010; ++i) queue.Push(Waiting(i, "quiet", 1000));
  int quiet = 0;
  for (int i = 0; i < 24; ++i) quiet += *queue.Pop() >= 1000;
  EXPECT_EQ(quiet, 10);
}

TEST(FairQueueTest, TellsAboutHowManyGoBefore) {
  FairQueue queue;
  EXPECT_EQ(queue.Before(Waiting(0, "quiet", 1000)), 0u);
  for (uint64_t i = 0; i < 100; ++i) queue.Push(Waiting(i, "flood", 1000));
  EXPECT_EQ(queue.Before(Waiting(0, "flood", 1000)), 100u);
  EXPECT_EQ(queue.Before(Waiting(0, "flood", 50'000)), 1u) << "its lane is empty";
  EXPECT_EQ(queue.Before(Waiting(0, "quiet", 1000)), 3u) << "a turn of the other";
  EXPECT_EQ(queue.Before(Waiting(0, "quiet", 1000, Priority::kLow)), 100u);
  EXPECT_EQ(queue.Before(Waiting(0, "quiet", 1000, Priority::kHigh)), 0u);
  // What was said holds.
  for (uint64_t i = 100; i < 110; ++i) queue.Push(Waiting(i, "quiet", 1000));
  const size_t before = queue.Before(Waiting(777, "quiet", 1000));
  queue.Push(Waiting(777, "quiet", 1000));
  size_t popped = 0;
  while (*queue.Pop() != 777) ++popped;
  EXPECT_NEAR(static_cast<double>(popped), static_cast<double>(before), 3);
}

TEST(FairQueueTest, TenantsShareTokensNotRequests) {
  FairQueue queue;
  for (uint64_t i = 0; i < 400; ++i) queue.Push(Waiting(i, "short", 200));
  for (uint64_t i = 400; i < 500; ++i) queue.Push(Waiting(i, "long", 2000));
  std::map<bool, int64_t> tokens;
  for (int i = 0; i < 220; ++i) {
    const uint64_t handle = *queue.Pop();
    tokens[handle >= 400] += handle >= 400 ? 2000 : 200;
  }
  EXPECT_NEAR(static_cast<double>(tokens[true]) / static_cast<double>(tokens[false]), 1, 0.15);
}

// The long prompt came first. It waits for as many tokens of short ones as it has itself, no more.
TEST(FairQueueTest, ALongPromptDoesNotBlockShortOnesAndIsNotStarved) {
  FairQueue queue;
  queue.Push(Waiting(0, "a", 100'000));
  for (uint64_t i = 1; i <= 1000; ++i) queue.Push(Waiting(i, "a", 500));
  const std::vector<uint64_t> order = PopAll(queue);
  const auto place = std::find(order.begin(), order.end(), 0u) - order.begin();
  EXPECT_GE(place, 150);
  EXPECT_LE(place, 250);
}

TEST(FairQueueTest, ALonePromptGoesAtOnceHoweverLongItIs) {
  FairQueue queue;
  queue.Push(Waiting(7, "a", int64_t{1} << 24));
  EXPECT_EQ(queue.Pop(), 7u);
}

TEST(FairQueueTest, HigherPrioritiesGoFirstAndLowerOnesGoOn) {
  FairQueue queue;
  for (uint64_t i = 0; i < 100; ++i) {
    queue.Push(Waiting(i, "a", 100, Priority::kHigh));
    queue.Push(Waiting(1000 + i, "b", 100, Priority::kLow));
  }
  int low = 0;
  for (int i = 0; i < 80; ++i) low += *queue.Pop() >= 1000;
  EXPECT_EQ(low, 80 / FairQueue::kLowerShare);
}

TEST(FairQueueTest, WhatIsRemovedOrExpiredNeverComes) {
  FairQueue queue;
  queue.Push(Waiting(1, "a", 100, Priority::kNormal, 5));
  queue.Push(Waiting(2, "b", 100, Priority::kNormal, 10));
  queue.Push(Waiting(3, "a", 100, Priority::kLow, 20));
  queue.Push(Waiting(4, "a", 100, Priority::kNormal, 30));
  EXPECT_TRUE(queue.Remove(4));
  EXPECT_FALSE(queue.Remove(4));
  EXPECT_THAT(queue.TakeExpired(TimePoint{} + std::chrono::seconds(10)), ElementsAre(1, 2));
  EXPECT_EQ(queue.size(Priority::kNormal), 0u);
  EXPECT_EQ(queue.size(Priority::kLow), 1u);
  EXPECT_THAT(PopAll(queue), ElementsAre(3));
}

TEST(FairQueueTest, PrioritiesHaveNames) {
  for (const Priority each : {Priority::kHigh, Priority::kNormal, Priority::kLow}) {
    EXPECT_EQ(PriorityFromName(PriorityName(each)), each);
  }
  EXPECT_EQ(PriorityFromName("urgent"), std::nullopt);
}

}  // namespace
}  // namespace baton::router
