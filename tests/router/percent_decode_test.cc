#include "router/percent_decode.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

TEST(PercentDecodeTest, SoundEscapesBecomeBytesOthersStay) {
  EXPECT_EQ(PercentDecode("plain"), "plain");
  EXPECT_EQ(PercentDecode("a%2Fb%3a1"), "a/b:1");
  EXPECT_EQ(PercentDecode("%"), "%");
  EXPECT_EQ(PercentDecode("%4"), "%4");
  EXPECT_EQ(PercentDecode("%zz%41"), "%zzA");
  EXPECT_EQ(PercentDecode("%00"), std::string(1, '\0'));
}

}  // namespace
}  // namespace baton::router
