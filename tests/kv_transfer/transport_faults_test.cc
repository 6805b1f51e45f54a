#include "kv_transfer/transport_faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

TEST(TransportFaultsTest, EveryKeyIsReadAndWritten) {
  const std::string text =
      "drop=0.5,duplicate=0.25,corrupt=1,truncate=0.125,replay=0.75,forge=0.5,close=0.001,"
      "stall=0.01,stall-ms=300,delay-ms=5,seed=18446744073709551615";
  const auto faults = TransportFaultsFromText(text);
  ASSERT_TRUE(faults.ok()) << faults.status();
  EXPECT_EQ(faults->drop, 0.5);
  EXPECT_EQ(faults->close, 0.001);
  EXPECT_EQ(faults->stall_time, std::chrono::milliseconds(300));
  EXPECT_EQ(faults->delay, std::chrono::milliseconds(5));
  EXPECT_EQ(ToText(*faults), text);
}

TEST(TransportFaultsTest, WhatHasNoSenseIsRefusedWithTheReason) {
  const auto error = [](std::string_view text) {
    return TransportFaultsFromText(text).status().ToString();
  };
  EXPECT_THAT(error(""), HasSubstr("'' is not KEY=VALUE"));
  EXPECT_THAT(error("drop=0.1,"), HasSubstr("'' is not KEY=VALUE"));
  EXPECT_THAT(error("drop"), HasSubstr("'drop' is not KEY=VALUE"));
  EXPECT_THAT(error("drops=0.1"), HasSubstr("did you mean 'drop'?"));
  EXPECT_THAT(error("reverse=0.1"), HasSubstr("there are seed, drop"));
  for (const char* const text : {"drop=1.1", "drop=-0.1", "drop=nan", "drop=", "drop=0.1x"}) {
    EXPECT_THAT(error(text), HasSubstr("from 0 to 1")) << text;
  }
  for (const char* const text : {"delay-ms=60001", "delay-ms=-1", "stall-ms=1.5"}) {
    EXPECT_THAT(error(text), HasSubstr("from 0 to 60000")) << text;
  }
  EXPECT_THAT(error("seed=18446744073709551616"), HasSubstr("64 bits"));
}

}  // namespace
}  // namespace baton::kv_transfer
