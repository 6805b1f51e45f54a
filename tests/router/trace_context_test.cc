#include "router/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace baton::router {
namespace {

constexpr char kParent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(ParseTraceparent, TakesWhatTheSpecificationDoes) {
  const auto parent = ParseTraceparent(kParent);
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->id_high, 0x0af7651916cd43ddu);
  EXPECT_EQ(parent->id_low, 0x8448eb211c80319cu);
  EXPECT_EQ(parent->span, 0xb7ad6b7169203331u);
  EXPECT_TRUE(parent->sampled);
  EXPECT_TRUE(ParseTraceparent(std::string("  ") + kParent + "\t"));
  EXPECT_FALSE(
      ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02")->sampled);
  // A later version may have more, behind another dash.
  EXPECT_TRUE(ParseTraceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  EXPECT_TRUE(ParseTraceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what"));
}

TEST(ParseTraceparent, RefusesTheRest) {
  for (const char* text : {
           "",
           "00",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
           "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
           "00-00000000000000000000000000000000-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
           "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
       }) {
    EXPECT_FALSE(ParseTraceparent(text)) << text;
  }
}

TEST(IsTracestate, KeepsTheSpecificationsBounds) {
  for (const char* text : {"a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, \tb=2",
                           "a=1,,b=2", "fw529a3039@dt=FfAf", "0t@v=x y", "a*-_/9=~!"}) {
    EXPECT_TRUE(IsTracestate(text)) << text;
  }
  for (const char* text : {"", ",", "a", "a=", "A=1", "1a=1", "a=1=2", "a=b\x01", "@v=1", "t@=1",
                           "t@vendorthatistoolong=1", "a b=1"}) {
    EXPECT_FALSE(IsTracestate(text)) << text;
  }
  std::string many = "a0=1";
  for (int i = 1; i < 32; ++i) many += ",a" + std::to_string(i) + "=1";
  EXPECT_TRUE(IsTracestate(many));
  EXPECT_FALSE(IsTracestate(many + ",z=1"));
  EXPECT_FALSE(IsTracestate("a=" + std::string(300, 'x')));
  EXPECT_FALSE(IsTracestate("a=" + std::string(250, 'x') + ",b=" + std::string(250, 'x') +
                            ",c=" + std::string(10, 'x')));
}

TEST(NewTrace, GoesOnWithTheCallersAndKeepsItsDecision) {
  const CallTrace trace = NewTrace(kParent, "a=1", /*record=*/true, /*ratio=*/0);
  EXPECT_TRUE(trace.sampled);
  EXPECT_EQ(trace.parent, 0xb7ad6b7169203331u);
  EXPECT_NE(trace.span, 0u);
  EXPECT_NE(trace.span, trace.parent);
  EXPECT_EQ(trace.state, "a=1");
  EXPECT_EQ(Traceparent(trace),
            "00-0af7651916cd43dd8448eb211c80319c-" + SpanIdText(trace.span) + "-01");
  EXPECT_EQ(TraceIdText(trace), "0af7651916cd43dd8448eb211c80319c");
  const CallTrace not_sampled =
      NewTrace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "A", true, 1);
  EXPECT_TRUE(not_sampled.on());
  EXPECT_FALSE(not_sampled.sampled);
  EXPECT_EQ(not_sampled.state, "");
  // The headers are passed on, recorded here or not.
  EXPECT_TRUE(NewTrace(kParent, "", /*record=*/false, 0).on());
}

TEST(NewTrace, BeginsOneWhereNobodyHas) {
  EXPECT_FALSE(NewTrace("", "", /*record=*/false, 1).on());
  EXPECT_FALSE(NewTrace("nonsense", "a=1", /*record=*/false, 1).on());
  const CallTrace all = NewTrace("nonsense", "a=1", true, 1);
  EXPECT_TRUE(all.on() && all.sampled);
  EXPECT_EQ(all.parent, 0u);
  EXPECT_EQ(all.state, "");  // it belonged to the trace that was none
  EXPECT_TRUE(ParseTraceparent(Traceparent(all)));
  EXPECT_FALSE(NewTrace("", "", true, 0).sampled);
  int sampled = 0;
  for (int i = 0; i < 4000; ++i) sampled += NewTrace("", "", true, 0.25).sampled ? 1 : 0;
  EXPECT_GT(sampled, 800);  // nine standard deviations
  EXPECT_LT(sampled, 1250);
}

}  // namespace
}  // namespace baton::router
