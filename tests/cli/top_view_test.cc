#include "cli/top_view.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

namespace baton::cli {
namespace {

using testing::DoubleEq;
using testing::DoubleNear;
using testing::HasSubstr;
using testing::SizeIs;

std::string MetricsText(double requests, double tokens, double p_busy, double d_busy,
                        double fast = 0, double slow = 0) {
  return fmt::format(
      "vllm:num_requests_running{{model_name=\"demo\"}} 3\n"
      "vllm:num_requests_waiting{{model_name=\"demo\"}} 2\n"
      "baton_queue_prompt_tokens 900\n"
      "vllm:request_success_total{{model_name=\"demo\",finished_reason=\"stop\"}} {}\n"
      "vllm:request_success_total{{model_name=\"demo\",finished_reason=\"length\"}} 10\n"
      "vllm:generation_tokens_total{{model_name=\"demo\"}} {}\n"
      "vllm:prefix_cache_queries_total{{model_name=\"demo\"}} {}\n"
      "vllm:prefix_cache_hits_total{{model_name=\"demo\"}} {}\n"
      "vllm:time_to_first_token_seconds_bucket{{model_name=\"demo\",le=\"0.1\"}} {}\n"
      "vllm:time_to_first_token_seconds_bucket{{model_name=\"demo\",le=\"0.2\"}} {}\n"
      "vllm:time_to_first_token_seconds_bucket{{model_name=\"demo\",le=\"+Inf\"}} {}\n"
      "baton_worker_busy_seconds_total{{worker=\"p0\",role=\"prefill\"}} {}\n"
      "baton_worker_busy_seconds_total{{worker=\"d0\",role=\"decode\"}} {}\n",
      requests, tokens, tokens, tokens / 4, fast, fast + slow, fast + slow, p_busy, d_busy);
}

std::string Workers(int p_waiting, int d_held, const std::string& p_name = "p0") {
  return fmt::format(
      R"({{"workers":[{{"name":"d0","role":"decode","address":"a","state":"ready","suspect":false,)"
      R"("running":3,"waiting":0,"transfers":1,"blocks_free":1,"blocks_held":{},)"
      R"("blocks_cached":0,"blocks_total":100}},)"
      R"({{"name":"{}","role":"prefill","address":"b","state":"ready","suspect":true,"running":1,)"
      R"("waiting":{},"transfers":0,"blocks_free":1,"blocks_held":10,"blocks_cached":5,)"
      R"("blocks_total":100}},)"
      R"({{"name":"","role":"","address":"127.0.0.1:7","state":"connecting","suspect":false,)"
      R"("running":0,"waiting":0,"transfers":0,"blocks_free":0,"blocks_held":0,)"
      R"("blocks_cached":0,"blocks_total":0}}]}})",
      d_held, p_name, p_waiting);
}

TopSample Sample(int second, const std::string& metrics, const std::string& workers) {
  auto sample = ReadTopSample(TimePoint(std::chrono::seconds(second)), metrics, workers);
  EXPECT_TRUE(sample.ok()) << sample.status();
  return *std::move(sample);
}

TEST(TopViewTest, RatesAreOfTheTimeBetweenTwoLooks) {
  const TopView view = ViewOf(Sample(10, MetricsText(100, 1000, 50, 7, 8, 0), Workers(0, 20)),
                              Sample(14, MetricsText(120, 3000, 51, 10, 8, 4), Workers(0, 20)));
  EXPECT_THAT(view.interval_s, DoubleEq(4));
  EXPECT_EQ(view.model, "demo");
  EXPECT_THAT(view.requests_per_s, DoubleEq(5));
  EXPECT_THAT(view.output_tokens_per_s, DoubleEq(500));
  EXPECT_THAT(view.cached_share, DoubleEq(0.25));
  EXPECT_THAT(view.prefill.busy, DoubleEq(0.25));
  EXPECT_THAT(view.decode.busy, DoubleEq(0.75));
  EXPECT_THAT(view.decode.kv_held, DoubleEq(0.2));
  ASSERT_THAT(view.workers, SizeIs(3));
  EXPECT_EQ(view.workers[0].name, "p0");
  EXPECT_EQ(view.workers[1].name, "127.0.0.1:7") << "it has not told its name";
  EXPECT_EQ(view.workers[2].name, "d0");
  EXPECT_TRUE(view.latencies[0].of_interval);
  EXPECT_THAT(view.latencies[0].quantiles.p50, DoubleNear(0.15, 1e-9)) << "the four new ones";
  EXPECT_FALSE(view.latencies[1].of_interval);
}

TEST(TopViewTest, ARouterThatBeganAnewHasNoNegativeRates) {
  const TopView view = ViewOf(Sample(10, MetricsText(100, 1000, 50, 7, 8, 0), Workers(0, 20)),
                              Sample(11, MetricsText(0, 0, 1, 1, 1, 0), Workers(0, 20)));
  EXPECT_EQ(view.requests_per_s, 0);
  EXPECT_EQ(view.prefill.busy, 0);
  EXPECT_FALSE(view.latencies[0].of_interval);
  EXPECT_EQ(view.latencies[0].quantiles.count, 1);
}

TEST(TopViewTest, SaysWhichRoleIsShort) {
  const auto advice = [](double p_busy, int p_waiting, int d_held) {
    return ViewOf(Sample(10, MetricsText(0, 0, 0, 0), Workers(0, 0)),
                  Sample(20, MetricsText(0, 0, p_busy, 1), Workers(p_waiting, d_held)))
        .advice;
  };
  EXPECT_EQ(advice(5, 0, 20), "");
  EXPECT_THAT(advice(9.5, 3, 20), HasSubstr("prefill is 95% busy, decode holds 20% of its KV: "
                                            "prefill is short"));
  EXPECT_THAT(advice(1, 0, 90), HasSubstr("decode is short"));
  EXPECT_THAT(advice(9.5, 3, 90), HasSubstr("both are short"));
}

TEST(TopViewTest, LinesFitTheTerminal) {
  const TopView view = ViewOf(Sample(10, MetricsText(100, 1000, 50, 7, 8, 0), Workers(0, 20)),
                              Sample(14, MetricsText(120, 3000, 51, 10, 8, 4), Workers(0, 20)));
  for (const size_t columns : {10u, 40u, 200u}) {
    for (const size_t rows : {1u, 5u, 12u, 13u, 100u}) {
      const auto lines = TopLines(view, columns, rows, /*colors=*/false);
      EXPECT_LE(lines.size(), rows);
      for (const std::string& line : lines) EXPECT_LE(line.size(), columns) << line;
    }
  }
  std::string all;
  for (const std::string& line : TopLines(view, 200, 100, false)) all += line + "\n";
  EXPECT_THAT(all, HasSubstr("5.0 requests/s"));
  EXPECT_THAT(all, HasSubstr("first token      150 ms     195 ms     199 ms"));
  EXPECT_THAT(all, HasSubstr("p0                   prefill  ready!"));
  EXPECT_THAT(TopLines(view, 200, 100, true)[0], HasSubstr("\033[1m"));
  EXPECT_THAT(TopLines(view, 200, 11, false).back(), HasSubstr("and 3 more workers"));
}

TEST(TopViewTest, NothingThatAWorkerSaysMovesTheCursor) {
  const TopSample sample =
      Sample(1, MetricsText(0, 0, 0, 0), Workers(0, 0, R"(p\u001b[2J\n\u00e4)"));
  for (const std::string& line : TopLines(ViewOf(sample, sample), 200, 100, false)) {
    for (const char c : line) EXPECT_TRUE(c >= 0x20 && c <= 0x7e) << line;
  }
}

TEST(TopViewTest, JsonHasTheSame) {
  const TopView view = ViewOf(Sample(10, MetricsText(100, 1000, 50, 7, 8, 0), Workers(0, 20)),
                              Sample(14, MetricsText(120, 3000, 51, 10, 8, 4), Workers(0, 20)));
  const boost::json::value value = boost::json::parse(TopJson(view));
  EXPECT_EQ(value.at("requests_per_s").as_double(), 5);
  EXPECT_EQ(value.at("workers").as_array().size(), 3u);
  EXPECT_EQ(value.at("prefill").at("busy").as_double(), 0.25);
  EXPECT_NEAR(value.at("latency").at("first_token").at("p50_s").as_double(), 0.15, 1e-9);
}

TEST(TopViewTest, RefusesWhatIsNoListOfWorkers) {
  for (const char* text : {"", "[]", "{}", R"({"workers":7})", "<html>"}) {
    EXPECT_FALSE(ReadTopSample({}, "", text).ok()) << text;
  }
}

}  // namespace
}  // namespace baton::cli
