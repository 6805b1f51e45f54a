#include "planner/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace baton::planner {
namespace {

// LLaMA-3-70B on TPU v5e as in "How to Scale Your Model": int8 weights at bf16 compute, int8 KV.
const ModelFacts kLlama70b = {.parameters = 70e9,
                              .weight_bytes_each = 1,
                              .layers = 80,
                              .kv_heads = 8,
                              .head_dim = 128,
                              .kv_bytes_each = 1};
HardwareFacts TpuV5e(double chips) {
  return {.chips = chips, .flops_per_s = 1.97e14, .hbm_bytes_per_s = 8.2e11, .hbm_bytes = 16e9};
}

void ExpectWithin1Percent(double value, double expected) {
  EXPECT_NEAR(value, expected, std::abs(expected) * 0.01);
}

TEST(CostModel, BooksQuantities) {
  EXPECT_EQ(KvBytesPerToken(kLlama70b), 163840);
  ModelFacts bf16 = kLlama70b;
  bf16.kv_bytes_each = bf16.weight_bytes_each = 2;
  EXPECT_EQ(KvBytesPerToken(bf16), 327680);
  ExpectWithin1Percent(CriticalBatch(bf16, TpuV5e(1)), 240.24);
  ExpectWithin1Percent(CriticalBatch(kLlama70b, TpuV5e(1)), 120.12);
  ExpectWithin1Percent(DecodeStepSeconds(kLlama70b, TpuV5e(8), 32, 8192), 0.017218);
  ExpectWithin1Percent(DecodeStepSeconds(kLlama70b, TpuV5e(16), 32, 8192), 0.0086090);
  ExpectWithin1Percent(PrefillSeconds(kLlama70b, TpuV5e(16), 8192, 0.4), 0.90964);
  ExpectWithin1Percent(TransferSeconds(327'680, 8192, 10e9), 0.26844);
}

TEST(CostModel, BooksMaxBatch) {
  // bf16 on the smallest slice that holds it (16 chips) and on twice that.
  ModelFacts bf16 = kLlama70b;
  bf16.kv_bytes_each = bf16.weight_bytes_each = 2;
  EXPECT_EQ(MaxBatch(bf16, TpuV5e(16), 8192), 43);
  EXPECT_EQ(MaxBatch(bf16, TpuV5e(32), 8192), 138);
  EXPECT_EQ(MaxBatch(bf16, TpuV5e(8), 8192), 0);  // the weights alone do not fit
}

TEST(CostModel, ThreePrefillWorkersPerDecodeWorker) {
  // The book's decode step is a full HBM: 16e9 bytes at 8.2e11 bytes/s, rounded to 19 ms.
  ExpectWithin1Percent(*PrefillPerDecode(0.91, 0.019, 32, 512), 2.9934);
}

TEST(CostModel, NoRatioWithoutWork) {
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_FALSE(PrefillPerDecode(bad, 0.019, 32, 512).ok()) << bad;
  }
  EXPECT_FALSE(PrefillPerDecode(0.91, 0, 32, 512).ok());
  EXPECT_FALSE(PrefillPerDecode(0.91, 0.019, 0, 512).ok());
  EXPECT_FALSE(PrefillPerDecode(0.91, 0.019, 32, 0).ok());
}

}  // namespace
}  // namespace baton::planner
