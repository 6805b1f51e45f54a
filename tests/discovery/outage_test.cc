#include "discovery/outage.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton::discovery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(OutageTest, TriesAllEndpointsBeforeItPauses) {
  Outage outage(3);
  EXPECT_EQ(outage.Pause(), Duration::zero());
  outage.OnFailure();
  EXPECT_EQ(outage.Pause(), Duration::zero());
  outage.OnFailure();
  outage.OnFailure();
  EXPECT_EQ(outage.Pause(), milliseconds(100));
  for (int i = 0; i < 3; ++i) outage.OnFailure();
  EXPECT_EQ(outage.Pause(), milliseconds(200));
  for (int i = 0; i < 3000; ++i) outage.OnFailure();
  EXPECT_EQ(outage.Pause(), seconds(2));
  EXPECT_TRUE(outage.OnSuccess());
  EXPECT_FALSE(outage.OnSuccess());
  EXPECT_EQ(outage.Pause(), Duration::zero());
}

TEST(OutageTest, EachEndpointsFailureIsNewsOnceAndThenSeldom) {
  Outage outage(2);
  std::vector<int> news;
  for (int i = 1; i <= 20; ++i) {
    if (outage.OnFailure()) news.push_back(i);
  }
  EXPECT_EQ(news, (std::vector<int>{1, 2, 4, 8, 16}));
  outage.OnSuccess();
  EXPECT_TRUE(outage.OnFailure());
}

}  // namespace
}  // namespace baton::discovery
