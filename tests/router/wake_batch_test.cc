#include "router/wake_batch.h"

#include <gtest/gtest.h>

#include <thread>

namespace baton::router {
namespace {

struct Counter final : Wakeable {
  void Wake() override { ++wakes; }
  int wakes = 0;
};

TEST(WakeBatchTest, WithoutABatchATargetIsWokenAtOnce) {
  const auto target = std::make_shared<Counter>();
  WakeBatch::Wake(target);
  WakeBatch::Wake(target);
  EXPECT_EQ(target->wakes, 2);
}

TEST(WakeBatchTest, ABatchWakesEachTargetOnceAtItsEnd) {
  const auto first = std::make_shared<Counter>();
  const auto second = std::make_shared<Counter>();
  {
    const WakeBatch batch;
    for (int i = 0; i < 3; ++i) WakeBatch::Wake(first);
    WakeBatch::Wake(second);
    EXPECT_EQ(first->wakes, 0);
    EXPECT_EQ(second->wakes, 0);
  }
  EXPECT_EQ(first->wakes, 1);
  EXPECT_EQ(second->wakes, 1);
}

TEST(WakeBatchTest, OnlyTheOutermostBatchWakes) {
  const auto target = std::make_shared<Counter>();
  {
    const WakeBatch outer;
    {
      const WakeBatch inner;
      WakeBatch::Wake(target);
    }
    EXPECT_EQ(target->wakes, 0);
  }
  EXPECT_EQ(target->wakes, 1);
}

TEST(WakeBatchTest, ABatchKeepsItsTargetsAlive) {
  auto target = std::make_shared<Counter>();
  const std::weak_ptr<Counter> watched = target;
  {
    const WakeBatch batch;
    WakeBatch::Wake(std::move(target));
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
}

TEST(WakeBatchTest, OtherThreadsAreNotHeldUp) {
  const auto target = std::make_shared<Counter>();
  const WakeBatch batch;
  std::thread([&] { WakeBatch::Wake(target); }).join();
  EXPECT_EQ(target->wakes, 1);
}

}  // namespace
}  // namespace baton::router
