#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

TEST(ThreadPoolTest, CoversEveryIndexOnce) {
  for (const int32_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<int> seen(count, 0);  // ranges are disjoint, so plain ints do
        pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int32_t thread) {
          EXPECT_LE(end - begin, grain);
          EXPECT_GE(thread, 0);
          EXPECT_LT(thread, threads);
          for (int64_t i = begin; i < end; ++i) ++seen[i];
        });
        EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), int64_t{0}), count);
        for (const int times : seen) EXPECT_EQ(times, 1);
      }
    }
  }
}

// Many short loops with pauses of all lengths between them, so that workers are met spinning,
// falling asleep, asleep and waking, on more threads than the machine has.
TEST(ThreadPoolTest, ManyShortLoops) {
  std::mt19937 random = TestRandom();
  ThreadPool pool(6);
  std::vector<int64_t> values(64);
  int64_t expected = 0;
  for (int64_t loop = 0; loop < 20000; ++loop) {
    const auto count = static_cast<int64_t>(random() % values.size());
    pool.ParallelFor(count, 1 + static_cast<int64_t>(random() % 4),
                     [&](int64_t begin, int64_t end, int32_t) {
                       for (int64_t i = begin; i < end; ++i) values[i] += loop;
                     });
    expected += count * loop;
    if (random() % 500 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
    }
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), expected);
}

// A pool can end while its threads spin, sleep, or have never run.
#if defined(__SSE2__)
TEST(ThreadPoolTest, DenormalsAreZeroInsideOnly) {
  ThreadPool pool(3);
  volatile float least = std::numeric_limits<float>::min();
  std::vector<float> halves(300, 1.0F);
  pool.ParallelFor(300, 1, [&](int64_t begin, int64_t, int32_t) { halves[begin] = least / 2; });
  for (const float half : halves) EXPECT_EQ(half, 0.0F);
  EXPECT_GT(least / 2, 0.0F);
}
#endif

TEST(ThreadPoolTest, StartsAndStops) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 4);
    std::atomic<int> calls{0};
    if (i % 3 != 0) pool.ParallelFor(10, 1, [&](int64_t, int64_t, int32_t) { ++calls; });
    if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(calls.load(), i % 3 != 0 ? 10 : 0);
  }
}

// The caller is pinned only when it asks for it, and only once.
TEST(ThreadPoolTest, PinsEachThreadToItsCpu) {
  const std::vector<int32_t> allowed = AllowedCpus();
  ASSERT_FALSE(allowed.empty());
  const auto threads = static_cast<int32_t>(std::min<size_t>(allowed.size(), 4));
  std::thread([&] {
    ThreadPool pool(threads, allowed);
    EXPECT_EQ(AllowedCpus(), allowed);
    pool.PinCaller();
    pool.PinCaller();
    std::vector<std::vector<int32_t>> seen(threads);
    pool.ParallelFor(1000, 1, [&](int64_t, int64_t, int32_t thread) {
      if (seen[thread].empty()) seen[thread] = AllowedCpus();
    });
    for (int32_t t = 0; t < threads; ++t) {
      if (seen[t].empty()) continue;  // the others were faster
      EXPECT_EQ(seen[t], std::vector<int32_t>{allowed[t]}) << t;
    }
    EXPECT_EQ(seen[0], std::vector<int32_t>{allowed[0]});
  }).join();
  EXPECT_EQ(AllowedCpus(), allowed);
}

}  // namespace
}  // namespace baton::kernels
