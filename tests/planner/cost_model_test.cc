#include "planner/cost_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace baton::planner {
namespace {

using testing::HasSubstr;

ModelFacts Model(const char* name) { return *KnownModelFacts(name); }

// LLaMA-3-70B on TPU v5e, as the book computes it.
Deployment BookSetup(double weight_bytes, double kv_bytes, int64_t chips) {
  return {.model = Model("llama-3-70b"),
          .precision = {.weight_bytes_each = weight_bytes, .kv_bytes_each = kv_bytes},
          .hardware = *KnownHardwareFacts("tpu-v5e"),
          .worker = {.tensor_parallel = chips},
          .assumptions = Assumptions::Book()};
}

Deployment RealSetup(const char* model, const char* hardware, int64_t tensor,
                     int64_t pipeline = 1) {
  return {.model = Model(model),
          .hardware = *KnownHardwareFacts(hardware),
          .worker = {.tensor_parallel = tensor, .pipeline_parallel = pipeline}};
}

// Each row of the book, by the functions that a plan uses.
std::map<std::string, double> ComputedRows() {
  const Deployment int8_8 = BookSetup(1, 1, 8), int8_16 = BookSetup(1, 1, 16);
  const Deployment bf16_16 = BookSetup(2, 2, 16), bf16_32 = BookSetup(2, 2, 32);
  Deployment slice_4x8 = BookSetup(2, 1, 32);
  slice_4x8.hardware.hbm_bytes_per_s = 8.1e11;  // what the book computes this row with
  const ModelFacts& model = bf16_16.model;
  const double full_step_s = FullHbmStepSeconds(bf16_16.hardware);
  const double step_8 = DecodeStepSeconds(int8_8, 32, 8192);
  const double step_16 = DecodeStepSeconds(int8_16, 32, 8192);
  const auto kv = [&](double bytes) { return KvBytesPerToken(model, {.kv_bytes_each = bytes}); };
  const auto kv_int8 = [&](double tokens) { return KvBytes(model, {.kv_bytes_each = 1}, tokens); };
  // Requests a second and chip of the largest batch, at a full memory read for each step.
  const auto qps_chip = [&](const Deployment& deployment) {
    const double batch = static_cast<double>(MaxBatch(deployment, 8192));
    const double chips = static_cast<double>(deployment.worker.chips());
    return DecodeRequestsPerSecond(batch, full_step_s, 512) / chips;
  };
  return {
      {"kv_bytes_per_token_int8", kv(1)},
      {"kv_bytes_per_token_bf16", kv(2)},
      {"kv_bytes_per_token_int4", kv(0.5)},
      {"params_llama3_70b", Parameters(model)},
      {"kv_seq_32768_int8", kv_int8(32768)},
      {"kv_b240_32768", 240 * kv_int8(32768)},
      {"chips_b240_32k", static_cast<double>(MinChips(int8_8, 240, 32768))},
      {"kv_b32_8192", 32 * kv_int8(8192)},
      {"total_b32_8192", WeightBytes(int8_8) + 32 * kv_int8(8192)},
      {"chips_b32_8192", static_cast<double>(MinChips(int8_8, 32, 8192))},
      {"step_s_4x2", step_8},
      {"step_s_4x4", step_16},
      {"tok_s_4x2", 32 / step_8},
      {"tok_s_chip_4x2", 32 / step_8 / 8},
      {"bcrit_bf16", CriticalBatch(bf16_16)},
      {"bcrit_int8w", CriticalBatch(int8_16)},
      {"ici_alpha", FlopsPerLinkByte(bf16_16)},
      {"Y_max_2axis", MaxTensorParallel(bf16_16)},
      {"t_ici_4x8_B64", FeedForwardLinkSeconds(slice_4x8, 64)},
      {"t_hbm_4x8", FeedForwardReadSeconds(slice_4x8)},
      {"t_math_4x8", FeedForwardMathSeconds(slice_4x8, 64)},
      {"maxB_8k_min_slice", static_cast<double>(MaxBatch(bf16_16, 8192))},
      {"maxB_8k_double", static_cast<double>(MaxBatch(bf16_32, 8192))},
      {"full_hbm_step_s", full_step_s},
      {"param_only_step_s", DecodeStepSeconds(bf16_16, 0, 8192)},
      {"decode512_s", 512 * full_step_s},
      {"qps_chip_bf16", qps_chip(bf16_16)},
      {"qps_chip_int8", qps_chip(BookSetup(1, 1, 8))},
      {"qps_chip_int4", qps_chip(BookSetup(0.5, 0.5, 4))},
      {"qps_chip_bf16_4x8", qps_chip(bf16_32)},
      {"qps_chip_int8_4x4", qps_chip(int8_16)},
      {"prefill_8192_s", PrefillSeconds(bf16_16, 8192)},
      {"finish_per_step", FinishedPerStep(32, 4096)},
      {"steps_per_finish", 1 / FinishedPerStep(32, 4096)},
      {"evict_tok_step", FreedTokensPerStep(32, 8192, 4096)},
      {"ratio_book", *PrefillPerDecode(0.91, 0.019, 32, 512)},  // as the book rounds them
  };
}

TEST(CostModel, EveryRowOfTheBookWithinOnePercent) {
  std::ifstream file("tests/golden/planner/scaling_book.tsv");
  ASSERT_TRUE(file.good());
  std::map<std::string, double> computed = ComputedRows();
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("#")) continue;
    std::istringstream columns(line);
    std::string id;
    double exact = 0;
    columns >> id >> exact;
    ASSERT_TRUE(computed.contains(id)) << id;
    EXPECT_NEAR(computed[id], exact, exact * 0.01) << id;
    computed.erase(id);
  }
  EXPECT_TRUE(computed.empty()) << computed.begin()->first;
}

TEST(CostModel, RatioWithoutTheBooksRounding) {
  // Three prefill workers for one decode worker, near enough; the exact answer depends on what a
  // step reads: 32 sequences (3.30), or, as the book takes it, the whole memory (2.91).
  const Deployment deployment = BookSetup(2, 2, 16);
  const double prefill_s = PrefillSeconds(deployment, 8192);
  EXPECT_NEAR(*PrefillPerDecode(prefill_s, DecodeStepSeconds(deployment, 32, 8192), 32, 512), 3.302,
              0.001);
  EXPECT_NEAR(*PrefillPerDecode(prefill_s, FullHbmStepSeconds(deployment.hardware), 32, 512), 2.914,
              0.001);
  EXPECT_NEAR(*PrefillPerDecode(prefill_s, 0.019, 32, 512) / 3, 0.9974, 0.0001);
}

TEST(CostModel, NoRatioWithoutWork) {
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_FALSE(PrefillPerDecode(bad, 0.019, 32, 512).ok()) << bad;
  }
  EXPECT_FALSE(PrefillPerDecode(0.91, 0, 32, 512).ok());
  EXPECT_FALSE(PrefillPerDecode(0.91, 0.019, 0, 512).ok());
  EXPECT_FALSE(PrefillPerDecode(0.91, 0.019, 32, 0).ok());
}

TEST(CostModel, ParametersAreThePublishedOnes) {
  // Counts as on the models' cards and in their papers; active ones where those name them.
  const struct {
    const char* name;
    double total, active;
  } published[] = {
      {"llama-2-7b", 6.74e9, 0},        {"llama-2-13b", 13.02e9, 0},
      {"llama-2-70b", 68.98e9, 0},      {"llama-3-8b", 8.03e9, 0},
      {"llama-3.1-405b", 405.9e9, 0},   {"llama-3.2-1b", 1.236e9, 0},
      {"llama-3.2-3b", 3.21e9, 0},      {"mistral-7b", 7.24e9, 0},
      {"mixtral-8x7b", 46.7e9, 12.9e9}, {"mixtral-8x22b", 140.6e9, 39.1e9},
      {"qwen2.5-7b", 7.62e9, 0},        {"qwen2.5-14b", 14.77e9, 0},
      {"qwen2.5-32b", 32.8e9, 0},       {"qwen2.5-72b", 72.7e9, 0},
      {"qwen3-8b", 8.19e9, 0},          {"qwen3-32b", 32.8e9, 0},
      {"qwen3-30b-a3b", 30.5e9, 3.3e9}, {"qwen3-235b-a22b", 235e9, 22e9},
      {"gemma-2b", 2.51e9, 0},          {"gemma-7b", 8.54e9, 0},
      {"gemma-2-9b", 9.24e9, 0},        {"gemma-2-27b", 27.2e9, 0},
      {"gemma-3-12b", 11.8e9, 0},       {"gemma-3-27b", 27.0e9, 0},
      {"deepseek-v2-lite", 15.7e9, 0},  {"deepseek-v2", 236e9, 21e9},
      {"deepseek-v3", 671e9, 37e9},     {"smollm2-135m", 134.5e6, 0},
  };
  for (const auto& row : published) {
    const ModelFacts model = Model(row.name);
    EXPECT_NEAR(Parameters(model), row.total, row.total * 0.01) << row.name;
    if (row.active > 0) {
      EXPECT_NEAR(ActiveParameters(model), row.active, row.active * 0.025) << row.name;
    } else if (model.experts == 0) {
      EXPECT_EQ(ActiveParameters(model), Parameters(model)) << row.name;
    }
  }
}

TEST(CostModel, KvOfLatentAttentionAndWindows) {
  // DeepSeek-V2: 576 elements in each of 60 layers, not 2 * 128 heads * 128.
  EXPECT_EQ(KvBytesPerToken(Model("deepseek-v2"), {}), 2 * 60 * 576);
  const ModelFacts gemma = Model("gemma-2-9b");
  const double token = KvBytesPerToken(gemma, {});
  EXPECT_EQ(token, 2 * 2 * 42 * 8 * 256);
  EXPECT_EQ(KvBytes(gemma, {}, 4096), 4096 * token);
  EXPECT_EQ(KvBytes(gemma, {}, 8192), 8192 * token / 2 + 4096 * token / 2);
}

TEST(CostModel, ExpertsAreReadAsTheyAreChosen) {
  const ModelFacts mixtral = Model("mixtral-8x7b");
  EXPECT_DOUBLE_EQ(ExpertCoverage(mixtral, 1), 0.25);
  EXPECT_DOUBLE_EQ(ExpertCoverage(mixtral, 2), 1 - 0.75 * 0.75);
  EXPECT_GT(ExpertCoverage(mixtral, 64), 0.9999);
  EXPECT_EQ(ExpertCoverage(Model("llama-3-8b"), 1), 1);
  // Hence a step of one sequence reads little more than a quarter of the weights.
  Deployment deployment = RealSetup("mixtral-8x7b", "h100", 2);
  deployment.assumptions.step_s = deployment.assumptions.collective_s = 0;
  EXPECT_LT(DecodeStepSeconds(deployment, 1, 100), 0.3 * DecodeStepSeconds(deployment, 32, 100));
  // and the batch at which compute binds is E/k times that of a dense model.
  EXPECT_DOUBLE_EQ(CriticalBatch(deployment),
                   4 * CriticalBatch(RealSetup("llama-3-8b", "h100", 2)));
}

TEST(CostModel, PrefillCountsAttention) {
  const Deployment deployment = RealSetup("llama-3-8b", "h100", 1);
  const ModelFacts& model = deployment.model;
  const double matrices = 2 * (Parameters(model) - 4096.0 * 128256) * 10000;
  const double attention = 32 * 4.0 * 4096 * (10000.0 * 10001 / 2);
  EXPECT_DOUBLE_EQ(PrefillFlops(deployment, 10000, 0), matrices + attention);
  // A prefix that is cached is attended to, not computed: a split costs the same pairs.
  EXPECT_NEAR(PrefillFlops(deployment, 4000, 0) + PrefillFlops(deployment, 6000, 4000),
              PrefillFlops(deployment, 10000, 0), 1e6);
  EXPECT_GT(PrefillSeconds(deployment, 6000, 4000), PrefillSeconds(deployment, 6000));
  EXPECT_LT(PrefillSeconds(deployment, 6000, 4000), PrefillSeconds(deployment, 10000));
}

TEST(CostModel, ParallelismAndLinks) {
  const Deployment one = RealSetup("llama-3-8b", "h100", 1),
                   four = RealSetup("llama-3-8b", "h100", 4);
  EXPECT_EQ(LinkSecondsPerStep(one, 32), 0);
  // Two all-reduces in each of 32 layers: 2 * 3/4 of 32 * 4096 bf16 at 80% of 450 GB/s, and starts.
  EXPECT_NEAR(LinkSecondsPerStep(four, 32), 64 * (1.5 * 32 * 4096 * 2 / 360e9 + 10e-6), 1e-9);
  const double speedup = DecodeStepSeconds(one, 32, 4096) / DecodeStepSeconds(four, 32, 4096);
  EXPECT_GT(speedup, 2);
  EXPECT_LT(speedup, 4);
  // A pipeline of two gives memory for more sequences, not shorter steps.
  const Deployment pipeline = RealSetup("llama-3-8b", "h100", 4, 2);
  EXPECT_GT(MaxBatch(pipeline, 4096), 1.9 * static_cast<double>(MaxBatch(four, 4096)));
  EXPECT_NEAR(DecodeStepSeconds(pipeline, 64, 4096), DecodeStepSeconds(four, 32, 4096), 1e-12);
  // It computes a long prompt twice as fast, but for the first chunk's way through it.
  EXPECT_LT(PrefillBusySeconds(pipeline, 8192), 0.6 * PrefillSeconds(four, 8192));
  EXPECT_DOUBLE_EQ(PrefillSeconds(pipeline, 8192), 1.25 * PrefillBusySeconds(pipeline, 8192));
}

TEST(CostModel, MixedStepsReadWeightsOnce) {
  const Deployment deployment = RealSetup("llama-3-8b", "h100", 1);
  const double decode_s = DecodeStepSeconds(deployment, 32, 1024);
  EXPECT_EQ(MixedStepSeconds(deployment, 32, 1024, 0, 0), decode_s);
  EXPECT_LT(MixedStepSeconds(deployment, 32, 1024, 512, 0),
            decode_s + PrefillSeconds(deployment, 512));
  EXPECT_GT(MixedStepSeconds(deployment, 32, 1024, 2048, 0),
            PrefillSeconds(deployment, 2048) * 0.95);
}

TEST(CostModel, MemoryAndTransfers) {
  EXPECT_EQ(MaxBatch(BookSetup(2, 2, 8), 8192), 0);  // the weights alone do not fit
  EXPECT_LT(KvCapacityBytes(BookSetup(2, 2, 8)), 0);
  EXPECT_NEAR(TransferSeconds(327'680, 8192, 10e9), 0.26844, 1e-5);
  EXPECT_TRUE(std::isinf(TransferSeconds(327'680, 8192, 0)));
  EXPECT_DOUBLE_EQ(KvLinkBytesPerSecond(RealSetup("llama-3-8b", "h100", 8)), 8 * 50e9 * 0.8);
}

TEST(Facts, KnownOnesAreSound) {
  for (const std::string& name : KnownModelNames()) {
    EXPECT_TRUE(CheckModelFacts(Model(name.c_str())).ok()) << CheckModelFacts(Model(name.c_str()));
  }
  for (const std::string& name : KnownHardwareNames()) {
    EXPECT_TRUE(CheckHardwareFacts(*KnownHardwareFacts(name)).ok()) << name;
  }
}

TEST(Facts, NamesAsPeopleWriteThem) {
  EXPECT_EQ(Model("Llama_3.1-8B").name, "llama-3.1-8b");
  EXPECT_EQ(KnownHardwareFacts("TPU v5e")->name, "tpu-v5e");
  EXPECT_EQ(KnownHardwareFacts("A100")->name, "a100-80gb");
  EXPECT_EQ(KnownHardwareFacts("Gaudi2")->name, "gaudi-2");
}

TEST(Facts, UnknownNamesGetTheNearest) {
  const auto hardware = KnownHardwareFacts("tpu-v5");
  EXPECT_EQ(hardware.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(hardware.status().message()),
              HasSubstr("there is no hardware 'tpu-v5'; nearest: tpu-v5e, tpu-v5p"));
  EXPECT_THAT(std::string(KnownModelFacts("lama-3-70b").status().message()),
              HasSubstr("nearest: llama-3-70b"));
  EXPECT_THAT(std::string(KnownModelFacts("70b").status().message()), HasSubstr("llama-2-70b"));
  EXPECT_THAT(std::string(KnownHardwareFacts("quantum computer").status().message()),
              HasSubstr("known: v100-16gb"));
}

TEST(Facts, RefusesNonsense) {
  ModelFacts model = Model("mixtral-8x7b");
  model.experts_per_token = 9;
  EXPECT_THAT(std::string(CheckModelFacts(model).message()), HasSubstr("9 of 8 experts"));
  model = Model("llama-3-8b");
  model.layers = 0;
  EXPECT_THAT(std::string(CheckModelFacts(model).message()), HasSubstr("layers is 0"));
  HardwareFacts hardware = *KnownHardwareFacts("h100");
  hardware.hbm_bytes_per_s = std::nan("");
  EXPECT_THAT(std::string(CheckHardwareFacts(hardware).message()),
              HasSubstr("hbm_bytes_per_s is nan"));
}

}  // namespace
}  // namespace baton::planner
