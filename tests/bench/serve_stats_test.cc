#include "bench/serve_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::bench {
namespace {

using testing::HasSubstr;

TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }

LoadAnswer Answer(double due_s, double ttft_s, std::vector<float> gaps_s) {
  LoadAnswer answer;
  answer.facts.status = 200;
  answer.facts.finished = true;
  answer.due = answer.sent = At(due_s);
  double end_s = due_s + ttft_s;
  answer.first_piece = At(end_s);
  for (const float gap_s : gaps_s) end_s += gap_s;
  answer.ended = At(end_s);
  answer.pieces = 1 + static_cast<int32_t>(gaps_s.size());
  answer.gaps_s = std::move(gaps_s);
  return answer;
}

TEST(ServeStatsTest, PercentilesAreValuesThatSoManyDoNotExceed) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Spread spread = SpreadOf(values);
  EXPECT_EQ(spread.p50, 50);
  EXPECT_EQ(spread.p90, 90);
  EXPECT_EQ(spread.p95, 95);
  EXPECT_EQ(spread.p99, 99);
  EXPECT_EQ(spread.max, 100);
  EXPECT_EQ(spread.mean, 50.5);
  EXPECT_EQ(SpreadOf({3}).p99, 3);
  EXPECT_EQ(SpreadOf({}).max, 0);
}

TEST(ServeStatsTest, ThroughputIsOverTheWholeRun) {
  ServeCollector collector({});
  collector.Add(Answer(10, 1, {0.5f, 0.5f}), 100);
  LoadAnswer counted = Answer(12, 1, {1});
  counted.facts.prompt_tokens = 40;
  counted.facts.output_tokens = 6;
  collector.Add(counted, 100);
  const ServeStats stats = collector.Finish();
  EXPECT_EQ(stats.ok, 2);
  EXPECT_DOUBLE_EQ(stats.duration_s, 4);
  EXPECT_DOUBLE_EQ(stats.requests_per_s, 0.5);
  EXPECT_DOUBLE_EQ(stats.input_tokens_per_s, 140 / 4.0);
  EXPECT_DOUBLE_EQ(stats.output_tokens_per_s, 9 / 4.0);
  EXPECT_DOUBLE_EQ(stats.itl_s.max, 1);
  EXPECT_DOUBLE_EQ(stats.e2e_s.max, 2);
}

TEST(ServeStatsTest, WaitingToBeSentCounts) {
  ServeCollector collector({});
  LoadAnswer late = Answer(10, 3, {});
  late.sent = At(12);
  collector.Add(late, 1);
  EXPECT_DOUBLE_EQ(collector.Finish().ttft_s.max, 3);
  EXPECT_DOUBLE_EQ(collector.Finish().latest_send_s, 2);
}

TEST(ServeStatsTest, GoodputCountsRequestsThatMeetBothObjectives) {
  ServeCollector collector({.ttft_s = 0.5, .itl_s = 0.1});
  collector.Add(Answer(0, 0.4, {0.05f, 0.12f}), 1);  // its mean gap is within
  collector.Add(Answer(0, 0.6, {0.05f}), 1);
  collector.Add(Answer(0, 0.4, {0.2f}), 1);
  LoadAnswer failed = Answer(0, 0.1, {});
  failed.end = LoadEnd::kBroken;
  collector.Add(failed, 1);
  const ServeStats stats = collector.Finish();
  EXPECT_DOUBLE_EQ(stats.good_share, 0.25);
  EXPECT_DOUBLE_EQ(stats.good_per_s, 1 / stats.duration_s);
}

TEST(ServeStatsTest, ErrorsAreCountedByKindAndTold) {
  ServeCollector collector({});
  LoadAnswer refused;
  refused.end = LoadEnd::kStatus;
  refused.facts.status = 429;
  refused.facts.error = "too much";
  collector.Add(refused, 1);
  collector.Add(refused, 1);
  LoadAnswer slow;
  slow.end = LoadEnd::kTimeout;
  collector.Add(slow, 1);
  const ServeStats stats = collector.Finish();
  EXPECT_EQ(stats.errors, (std::map<std::string, int64_t>{{"http 429", 2}, {"time-out", 1}}));
  const std::string json = ServeStatsJson(stats, {});
  EXPECT_THAT(json, HasSubstr(R"("errors":{"http 429":2,"time-out":1})"));
  const std::string text = ServeStatsText(stats, {});
  EXPECT_THAT(text, HasSubstr("too much"));
  EXPECT_THAT(text, HasSubstr("http 429"));
}

TEST(ServeStatsTest, CurvesAscendAndEndWithEverything) {
  ServeCollector collector({});
  for (int i = 0; i < 1000; ++i) collector.Add(Answer(1000 - i, i * 0.001, {0.5f}), 1);
  const auto shares = collector.TtftShares();
  EXPECT_LE(shares.size(), 202u);
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_DOUBLE_EQ(shares.back().second, 1);
  EXPECT_NEAR(shares.back().first, 0.999, 1e-6);
  const auto over_time = collector.TtftOverTime();
  EXPECT_EQ(over_time.size(), 1000u);
  EXPECT_EQ(over_time.front().first, 0);
  EXPECT_NEAR(over_time.front().second, 0.999, 1e-6);
}

}  // namespace
}  // namespace baton::bench
