#include "common/nearest_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton {
namespace {

const std::vector<std::string> kNames = {"max_tokens", "temperature", "top_p", "top_k", "stop"};

TEST(NearestName, FindsTypingMistakes) {
  EXPECT_EQ(NearestName("max_token", kNames), "max_tokens");
  EXPECT_EQ(NearestName("temprature", kNames), "temperature");
  EXPECT_EQ(NearestName("topp", kNames), "top_p");
  EXPECT_EQ(NearestName("stop", kNames), "stop");
  EXPECT_EQ(NearestName("tpo_k", kNames), "top_k");
}

TEST(NearestName, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(NearestName("frequency", kNames), "");
  EXPECT_EQ(NearestName("", kNames), "");
  EXPECT_EQ(NearestName(std::string(100000, 'a'), kNames), "");
}

TEST(NearestName, DidYouMeanIsTheEndOfAnError) {
  EXPECT_EQ(DidYouMean("temprature", kNames), "; did you mean 'temperature'?");
  EXPECT_EQ(DidYouMean("frequency", kNames), "");
}

}  // namespace
}  // namespace baton
