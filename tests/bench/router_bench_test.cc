// The benchmark against a router in this process: that it measures what it says. Its numbers are
// not looked at, but for those that cannot be otherwise.

#include "bench/router_bench.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "bench/placement_bench.h"
#include "bench/simulated_workers.h"
#include "model_file/gguf.h"
#include "router/dispatcher.h"
#include "router/http_server.h"
#include "text/tokenizer.h"

namespace baton::bench {
namespace {

constexpr char kModel[] = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

class RouterBenchTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto file = GgufFile::Open(kModel);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto tokenizer = text::Tokenizer::Create(**file);
    ASSERT_TRUE(tokenizer.ok());
    auto workers = SimulatedWorkers::Start(
        {.prefill = 1,
         .decode = 2,
         .vocab_size = (*tokenizer)->vocab_size(),
         .context_tokens = 8192,
         .answer = (*tokenizer)->Encode(" one two three", text::SpecialTokens::kPlainText)});
    ASSERT_TRUE(workers.ok()) << workers.status();
    workers_ = *std::move(workers);
    router::DispatcherOptions options;
    options.model_path = kModel;
    options.workers = workers_->addresses();
    auto dispatcher = router::Dispatcher::Create(options);
    ASSERT_TRUE(dispatcher.ok()) << dispatcher.status();
    dispatcher_ = *std::move(dispatcher);
    auto http = router::HttpServer::Create({.address = "127.0.0.1:0"}, dispatcher_.get());
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
    options_ = {.requests = 40,
                .prompt_tokens = 60,
                .output_tokens = 3,
                .concurrency = 8,
                .unary_concurrency = 8,
                .long_prompt_tokens = 4000,
                .long_prompts = 2,
                .idle_streams = 30,
                .growth_requests = 40};
  }

  absl::StatusOr<RouterBench> Connect() {
    const auto url = ParseLoadUrl("http://" + http_->address());
    EXPECT_TRUE(url.ok());
    return RouterBench::Connect(options_, *url, getpid(), workers_.get());
  }
  static std::set<std::string> Names(const absl::StatusOr<std::vector<RouterRow>>& rows) {
    EXPECT_TRUE(rows.ok()) << rows.status();
    std::set<std::string> names;
    if (rows.ok()) {
      for (const RouterRow& row : *rows) names.insert(row.name);
    }
    return names;
  }

  RouterBenchOptions options_;
  std::unique_ptr<SimulatedWorkers> workers_;
  std::unique_ptr<router::Dispatcher> dispatcher_;
  std::unique_ptr<router::HttpServer> http_;
};

TEST_F(RouterBenchTest, EveryMeasurementGivesItsRows) {
  auto bench = Connect();
  ASSERT_TRUE(bench.ok()) << bench.status();
  EXPECT_TRUE(Names(bench->Streams()).contains("requests_per_s_per_core"));
  const auto half = Names(bench->HalfLoad(200));
  for (const char* name : {"cpu_ms_per_request", "added_ttft_p50_ms", "added_ttft_p99_ms"}) {
    EXPECT_TRUE(half.contains(name)) << name;
  }
  EXPECT_TRUE(Names(bench->Unary()).contains("cpu_ms_per_request_unary"));
  const auto prompts = Names(bench->LongPrompts());
  EXPECT_TRUE(prompts.contains("prompt_100k_text_ms"));
  EXPECT_TRUE(prompts.contains("prompt_100k_ids_ms"));
  EXPECT_TRUE(Names(bench->MemoryGrowth()).contains("memory_growth_percent"));
  const auto idle = bench->IdleStreams();
  ASSERT_TRUE(idle.ok()) << idle.status();
  EXPECT_EQ(idle->front().name, "idle_streams");
  EXPECT_EQ(idle->front().value, 30);
}

TEST_F(RouterBenchTest, ARequestThatFailsFailsTheMeasurement) {
  options_.output_tokens = 1'000'000;  // more than the context
  auto bench = Connect();
  ASSERT_TRUE(bench.ok()) << bench.status();
  const auto rows = bench->Unary();
  ASSERT_FALSE(rows.ok());
  EXPECT_NE(rows.status().message().find("HTTP 400"), std::string::npos) << rows.status();
}

TEST(PlacementBenchTest, APlacementTakesTime) {
  EXPECT_GT(PlacementMicroseconds(100, {.count = 1, .round_ms = 1}), 0);
}

TEST(SimulatedWorkersTest, SettingsThatMakeNoSenseAreRefused) {
  EXPECT_FALSE(SimulatedWorkers::Start({.decode = 0, .answer = {1}}).ok());
  EXPECT_FALSE(SimulatedWorkers::Start({.decode = 1}).ok());
}

}  // namespace
}  // namespace baton::bench
