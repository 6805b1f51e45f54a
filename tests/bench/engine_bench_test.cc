#include "bench/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/bench/bench_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::bench {
namespace {

using testing::HasSubstr;

EngineBenchOptions Small() {
  EngineBenchOptions options;
  options.engine.threads = 2;
  options.batches = {1, 3};
  options.prompt_tokens = 20;
  options.generated_tokens = 3;
  options.chunk_tokens = 8;
  options.repeat = 2;
  return options;
}

class EngineBenchTest : public testing::Test {
 protected:
  std::unique_ptr<EngineBench> Load(const EngineBenchOptions& options) {
    auto bench = EngineBench::Load(*file_, options);
    BATON_CHECK(bench.ok(), std::string(bench.status().message()));
    return *std::move(bench);
  }
  std::string Refusal(const EngineBenchOptions& options) {
    const auto bench = EngineBench::Load(*file_, options);
    EXPECT_EQ(bench.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(bench.status().message());
  }
  std::shared_ptr<const GgufFile> file_ = engine::OpenTiny({.layers = 2, .feed_forward = 384});
};

TEST_F(EngineBenchTest, MeasuresEachBatch) {
  const auto bench = Load(Small());
  for (const int32_t batch : {1, 3, 2}) {
    const auto row = bench->Measure(batch);
    ASSERT_TRUE(row.ok()) << row.status();
    EXPECT_EQ(row->model, "tiny.gguf");
    EXPECT_EQ(row->threads, 2);
    EXPECT_EQ(row->batch, batch);
    EXPECT_EQ(row->prompt_tokens, 20);
    EXPECT_EQ(row->generated_tokens, 3);
    for (const double rate : {row->prefill_tokens_per_s, row->decode_tokens_per_s}) {
      EXPECT_TRUE(std::isfinite(rate));
      EXPECT_GT(rate, 0);
    }
  }
}

TEST_F(EngineBenchTest, AsksWhatDramGivesAroundEachDecode) {
  EngineBenchOptions options = Small();
  std::vector<double> answers = {1, 10, 2, 4};
  size_t asked = 0;
  options.dram_gb_s = [&] { return answers[asked++]; };
  EXPECT_EQ(Load(options)->Measure(1)->dram_gb_s, 3);
  EXPECT_EQ(asked, 4);
  EXPECT_EQ(Load(Small())->Measure(1)->dram_gb_s, 0);
}

TEST_F(EngineBenchTest, ProgressRisesToAll) {
  const auto bench = Load(Small());
  double last = 0;
  ASSERT_TRUE(bench
                  ->Measure(3,
                            [&](double share) {
                              EXPECT_GT(share, last);
                              last = share;
                            })
                  .ok());
  EXPECT_EQ(last, 1);
}

TEST_F(EngineBenchTest, TheCacheIsForTheLargestBatch) {
  const auto bench = Load(Small());
  EXPECT_EQ(bench->kv_bytes(), 3 * 2 * bench->layout().block_bytes());  // 23 tokens: 2 blocks of 16
  EXPECT_GT(bench->weight_bytes(), 0);
  EXPECT_GT(bench->load_s(), 0);
}

TEST_F(EngineBenchTest, APromptMayFillTheContext) {
  EngineBenchOptions options = Small();
  options.batches = {1};
  options.repeat = 1;
  options.engine.max_context = 23;
  EXPECT_TRUE(Load(options)->Measure(1).ok());
  options.engine.max_context = 22;
  EXPECT_THAT(Refusal(options), HasSubstr("prompt has 20 tokens and 3 are generated: 23 together, "
                                          "context is 22"));
}

TEST_F(EngineBenchTest, RefusesOptionsWithoutSense) {
  EngineBenchOptions options = Small();
  options.batches = {1, 0};
  EXPECT_THAT(Refusal(options), HasSubstr("a batch of 0 sequences"));
  options.batches = {1025};
  EXPECT_THAT(Refusal(options), HasSubstr("a batch of 1025 sequences cannot be measured: 1 to"));
  options.batches = {};
  EXPECT_THAT(Refusal(options), HasSubstr("no batch"));
  options = Small();
  options.prompt_tokens = 300;
  EXPECT_THAT(Refusal(options), HasSubstr("303 together, context is 256"));
  for (int32_t EngineBenchOptions::*field :
       {&EngineBenchOptions::prompt_tokens, &EngineBenchOptions::generated_tokens,
        &EngineBenchOptions::chunk_tokens, &EngineBenchOptions::repeat}) {
    options = Small();
    options.*field = 0;
    EXPECT_THAT(Refusal(options), HasSubstr("at least 1"));
  }
  EXPECT_EQ(Load(Small())->Measure(4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineBenchTest, AStopCancels) {
  EngineBenchOptions options = Small();
  int steps = 0;
  options.stop = [&] { return ++steps > 4; };
  EXPECT_EQ(Load(options)->Measure(3).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(steps, 5);
}

// Of a prompt: each weight of the layers twice a token, but what follows the last layer's keys and
// values, and the output matrix, for one token; and attention.
TEST_F(EngineBenchTest, CountsTheWork) {
  const auto bench = Load(Small());
  const double projections = 256 * (256 + 2 * 128);
  const double rest = 256 * 256 + 3 * 256 * 384;
  const double output = 320 * 256;
  const double attention = 4.0 * 4 * 64 * (20 * 21 / 2 + 20);
  const Ceilings ceilings = RoundCeilings();
  const EngineWork work = bench->WorkOf(3, ceilings);
  EXPECT_DOUBLE_EQ(work.prefill_ops,
                   2 * (2 * projections + rest) * 20 + 2 * (rest + output) + attention);
  EXPECT_DOUBLE_EQ(work.prefill_s, work.prefill_ops / 100e9);  // F32 weights
  // Contexts 21, 22, 23 for each of 3 sequences; K and V of 2 heads of 64 halves in 2 layers.
  EXPECT_DOUBLE_EQ(work.decode_bytes,
                   static_cast<double>(bench->weight_bytes()) + 3.0 * 22 * 2 * 2 * 2 * 64 * 2);
}

TEST_F(EngineBenchTest, AnEmbeddingTableOfItsOwnIsNotRead) {
  file_ = engine::OpenTiny({.layers = 2, .feed_forward = 384, .tied = false});
  const auto bench = Load(Small());
  const double table = 320 * 256 * 4;
  const double kv = 22 * 2 * 2 * 2 * 64 * 2;
  EXPECT_NEAR(bench->WorkOf(1, RoundCeilings()).decode_bytes,
              static_cast<double>(bench->weight_bytes()) - table + kv, 0.01 * table);
}

TEST_F(EngineBenchTest, WithoutADotCeilingPrefillHasNoShare) {
  file_ = engine::OpenTiny({.weights = DType::kQ8_0});
  Ceilings ceilings = RoundCeilings();
  const auto bench = Load(Small());
  EXPECT_GT(bench->WorkOf(1, ceilings).prefill_s, 0);
  ceilings.int8_gop_s.reset();
  EXPECT_EQ(bench->WorkOf(1, ceilings).prefill_s, 0);
}

TEST_F(EngineBenchTest, TableTellsSharesAndMemory) {
  const auto bench = Load(Small());
  const Ceilings ceilings = RoundCeilings();
  const std::string head = EngineTableHead(*bench);
  for (const char* part : {"tiny.gguf", "2 threads", "weights", "resident", "load", "(F16)"}) {
    EXPECT_THAT(head, HasSubstr(part));
  }
  for (const char* part : {"DRAM read 10.0 GB/s", "FP32 100 GFLOP/s", "INT8 400 GOP/s"}) {
    EXPECT_THAT(CeilingsText(ceilings), HasSubstr(part));
  }
  const EngineRow row = {"tiny.gguf", 2, 2, 100, 10, 1000, 50};
  // 10 prompts a second, 25 steps a second.
  const EngineWork work = {.prefill_ops = 2e9, .prefill_s = 0.05, .decode_bytes = 1e8};
  const std::string line = EngineTableLine(row, work, ceilings);
  for (const char* part : {"1000.0", "20.0", "50%", "50.0", "2.5", "25%"}) {
    EXPECT_THAT(line, HasSubstr(part));
  }
  EngineRow slower = row;
  slower.dram_gb_s = 5;
  EXPECT_THAT(EngineTableLine(slower, work, ceilings), testing::EndsWith(" 50%"));
  EXPECT_EQ(head.substr(head.rfind('\n') + 1).size(), line.size());
}

}  // namespace
}  // namespace baton::bench
