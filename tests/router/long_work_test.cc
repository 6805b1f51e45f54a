#include "router/long_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace baton::router {
namespace {

TEST(LongWork, DoesAllThatItTookAndRefusesWhatIsTooMuch) {
  std::atomic<int> done{0};
  std::promise<void> gate;
  const std::shared_future<void> opened = gate.get_future().share();
  {
    LongWork work(100);
    std::atomic<size_t> begun{0};
    for (size_t i = 0; i < LongWork::kThreads; ++i) {
      ASSERT_TRUE(work.Do(100,
                          [&] {
                            ++begun;
                            opened.wait();
                            ++done;
                          })
                      .ok());
      while (begun <= i) std::this_thread::yield();  // what runs does not wait any more
    }
    ASSERT_TRUE(work.Do(60, [&] { ++done; }).ok());
    const absl::Status refused = work.Do(41, [&] { done += 1000; });
    EXPECT_TRUE(absl::IsResourceExhausted(refused));
    EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("requests of 60 bytes wait"));
    ASSERT_TRUE(work.Do(40, [&] { ++done; }).ok());
    gate.set_value();
    work.Finish();
    EXPECT_TRUE(absl::IsUnavailable(work.Do(0, [&] { done += 1000; })));
  }
  EXPECT_EQ(done, static_cast<int>(LongWork::kThreads) + 2);
}

TEST(LongWork, KnowsWhatMayCompile) {
  EXPECT_TRUE(MayCompile(R"({"guided_regex":"a+"})"));
  EXPECT_TRUE(MayCompile("{\"guided\\u005fregex\":\"a+\"}"));
  EXPECT_FALSE(MayCompile(R"({"prompt":"once","max_tokens":5})"));
}

}  // namespace
}  // namespace baton::router
