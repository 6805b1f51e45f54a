#include "common/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace baton {
namespace {

TEST(BoundedQueue, RefusesWhenFullAndKeepsOrder) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.TryPop(), 1);
  EXPECT_TRUE(queue.TryPush(4));
  EXPECT_EQ(queue.TryPop(), 2);
  EXPECT_EQ(queue.TryPop(), 4);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueue, RefusedValueIsLeftAsItWas) {
  BoundedQueue<std::vector<int>> queue(0);
  std::vector<int> value = {1, 2, 3};
  EXPECT_FALSE(queue.TryPush(std::move(value)));
  EXPECT_EQ(value.size(), 3u);
}

TEST(BoundedQueue, CloseWakesConsumersAndDrains) {
  BoundedQueue<int> queue(4);
  ASSERT_TRUE(queue.TryPush(7));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.PopFor(std::chrono::hours(1)), 7);
  EXPECT_EQ(queue.PopFor(std::chrono::hours(1)), std::nullopt);
  EXPECT_TRUE(queue.closed());
}

TEST(BoundedQueue, PopForTimesOut) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.PopFor(std::chrono::milliseconds(1)), std::nullopt);
}

TEST(BoundedQueue, ManyProducersAndConsumersLoseNothing) {
  constexpr int kProducers = 4, kEach = 5000;
  BoundedQueue<int> queue(64);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < kProducers; ++p) {
    threads.emplace_back([&] {
      for (int i = 1; i <= kEach; ++i) {
        while (!queue.TryPush(int{i})) std::this_thread::yield();
      }
    });
  }
  for (int c = 0; c < 2; ++c) {
    threads.emplace_back([&] {
      while (const std::optional<int> value = queue.PopFor(std::chrono::hours(1))) sum += *value;
    });
  }
  for (int p = 0; p < kProducers; ++p) threads[p].join();
  queue.Close();
  for (size_t c = kProducers; c < threads.size(); ++c) threads[c].join();
  EXPECT_EQ(sum.load(), int64_t{kProducers} * kEach * (kEach + 1) / 2);
}

}  // namespace
}  // namespace baton
