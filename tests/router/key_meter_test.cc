#include "router/key_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/error_code.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr TimePoint kStart = TimePoint{} + seconds(1000);

void ExpectRefused(const absl::Status& status, const char* text, double retry_s) {
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  ASSERT_TRUE(RetryAfter(status).has_value());
  EXPECT_NEAR(Seconds(*RetryAfter(status)), retry_s, 0.01);
}

TEST(KeyMeterTest, WithoutLimitsEverybodyMayComeIn) {
  KeyMeter meter({});
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(meter.Enter(kStart).ok());
  meter.Charge(1'000'000'000, kStart);
  EXPECT_TRUE(meter.Enter(kStart).ok());
}

TEST(KeyMeterTest, RequestsASecond) {
  KeyMeter meter({.requests_per_second = 4});
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(meter.Enter(kStart).ok());
  ExpectRefused(meter.Enter(kStart), "more than its 4 requests a second", 0.25);
  EXPECT_TRUE(meter.Enter(kStart + milliseconds(250)).ok());
  ExpectRefused(meter.Enter(kStart + milliseconds(300)), "4 requests", 0.2);
}

TEST(KeyMeterTest, RequestsLessOftenThanOnceASecond) {
  KeyMeter meter({.requests_per_second = 0.1});
  EXPECT_TRUE(meter.Enter(kStart).ok());
  ExpectRefused(meter.Enter(kStart + seconds(1)), "0.1 requests", 9);
  EXPECT_TRUE(meter.Enter(kStart + seconds(10)).ok());
}

TEST(KeyMeterTest, ConcurrentRequests) {
  KeyMeter meter({.concurrent_requests = 2});
  EXPECT_TRUE(meter.Enter(kStart).ok());
  EXPECT_TRUE(meter.Enter(kStart).ok());
  ExpectRefused(meter.Enter(kStart), "has 2 requests running, its limit is 2", 1);
  meter.Leave();
  EXPECT_TRUE(meter.Enter(kStart).ok());
  EXPECT_EQ(meter.usage().running, 2);
  EXPECT_EQ(meter.usage().refused, 1u);
}

TEST(KeyMeterTest, TokensAMinuteArePaidAfterwards) {
  KeyMeter meter({.tokens_per_minute = 600});
  EXPECT_TRUE(meter.Enter(kStart).ok());
  meter.Charge(900, kStart);  // 300 more than there were
  ExpectRefused(meter.Enter(kStart), "used its 600 tokens a minute", 30.1);
  EXPECT_TRUE(meter.Enter(kStart + seconds(31)).ok());
}

TEST(KeyMeterTest, TokensADayAreAQuota) {
  KeyMeter meter({.tokens_per_day = 86'400});
  meter.Charge(86'400, kStart);
  const absl::Status refused = meter.Enter(kStart);
  ExpectRefused(refused, "used its 86400 tokens a day", 1);
  EXPECT_EQ(ErrorCode(refused), kInsufficientQuota);
}

TEST(KeyMeterTest, ChangedLimitsKeepWhatWasUsed) {
  KeyMeter meter({.tokens_per_minute = 600});
  meter.Charge(600, kStart);
  meter.SetLimits({.tokens_per_minute = 1200}, kStart);
  EXPECT_TRUE(meter.Enter(kStart).ok());
  meter.Charge(600, kStart);
  EXPECT_FALSE(meter.Enter(kStart).ok());
  meter.SetLimits({}, kStart);
  EXPECT_TRUE(meter.Enter(kStart).ok());
}

}  // namespace
}  // namespace baton::router
