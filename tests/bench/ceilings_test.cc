#include "bench/ceilings.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/isa_probes.h"
#include "tests/bench/bench_testing.h"

namespace baton::bench {
namespace {

using kernels::CpuIsa;

void ExpectRate(double rate) {
  EXPECT_TRUE(std::isfinite(rate));
  EXPECT_GT(rate, 0);
}

TEST(CeilingsTest, MeasuresEveryInstructionSetOfTheMachine) {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx}) {
    if (!kernels::ResolveCpuIsa(isa).ok()) continue;
    CeilingOptions options = QuickCeilings();
    options.isa = isa;
    const auto ceilings = MeasureCeilings(options);
    ASSERT_TRUE(ceilings.ok()) << ceilings.status();
    EXPECT_EQ(ceilings->isa, kernels::CpuIsaName(isa));
    EXPECT_EQ(ceilings->threads, 2);
    EXPECT_EQ(ceilings->dram_buffer_bytes, options.dram_buffer_bytes);
    ExpectRate(ceilings->dram_read_gb_s);
    ExpectRate(ceilings->scattered_read_gb_s);
    ExpectRate(ceilings->l3_read_gb_s);
    ExpectRate(ceilings->l2_read_gb_s);
    ExpectRate(ceilings->fp32_gop_s);
    EXPECT_EQ(ceilings->bf16_gop_s.has_value(), isa >= CpuIsa::kAvx512);
    EXPECT_EQ(ceilings->int8_gop_s.has_value(), isa != CpuIsa::kPortable);
    if (ceilings->bf16_gop_s) ExpectRate(*ceilings->bf16_gop_s);
    if (ceilings->int8_gop_s) ExpectRate(*ceilings->int8_gop_s);
  }
}

// A probe that left out bytes would promise more than the machine can do.
TEST(CeilingsTest, ReadProbeReadsEveryVectorOnce) {
  constexpr int64_t kBytes = 256 * kernels::kMaxProbeStreams * 3;
  alignas(64) static uint8_t memory[kBytes];
  const kernels::IsaProbes& probes = kernels::portable::GetIsaProbes();
  for (const int streams : {1, 2, 4}) {
    for (const int64_t ahead : {0, 1024, -1024}) {
      std::fill(std::begin(memory), std::end(memory), uint8_t{0});
      ASSERT_EQ(probes.read(memory, kBytes, streams, ahead), 0);
      for (int64_t lane = 0; lane < kBytes; lane += 16) {  // portable vectors have 16 bytes
        memory[lane] = 1;
        EXPECT_EQ(probes.read(memory, kBytes, streams, ahead), 1) << lane;
        memory[lane] = 0;
      }
    }
  }
}

TEST(CeilingsTest, ArithmeticProbesComputeWhatTheyCount) {
  const kernels::IsaProbes& probes = kernels::portable::GetIsaProbes();
  // No rounds: the sum of the starting values, 1 + 2 + ... + 12 in each of 4 lanes.
  EXPECT_EQ(probes.fp32.round_ops, 12 * 4 * 2);
  EXPECT_FLOAT_EQ(probes.fp32.run(0), 4 * 78);
  EXPECT_LT(probes.fp32.run(1000), probes.fp32.run(0));
}

TEST(CeilingsTest, TheSmallestMemoryThatHoldsHalfTheBytesIsTheCeiling) {
  const Ceilings ceilings = RoundCeilings();
  EXPECT_EQ(ceilings.ReadGbS(1), 80);
  EXPECT_EQ(ceilings.ReadGbS(4 << 20), 80);  // 1 MiB for each thread
  EXPECT_EQ(ceilings.ReadGbS((4 << 20) + 1), 40);
  EXPECT_EQ(ceilings.ReadGbS(32 << 20), 40);
  EXPECT_FALSE(ceilings.ComesFromDram(32 << 20));
  EXPECT_EQ(ceilings.ReadGbS((32 << 20) + 1), 10);
  EXPECT_TRUE(ceilings.ComesFromDram((32 << 20) + 1));
}

TEST(CeilingsTest, RaiseToKeepsTheBest) {
  Ceilings ceilings = RoundCeilings();
  Ceilings later = RoundCeilings();
  later.dram_read_gb_s = 11;
  later.l3_read_gb_s = 39;
  later.fp32_gop_s = 99;
  later.int8_gop_s = 401;
  later.bf16_gop_s.reset();
  ceilings.RaiseTo(later);
  EXPECT_EQ(ceilings.dram_read_gb_s, 11);
  EXPECT_EQ(ceilings.l3_read_gb_s, 40);
  EXPECT_EQ(ceilings.l2_read_gb_s, 80);
  EXPECT_EQ(ceilings.fp32_gop_s, 100);
  EXPECT_EQ(ceilings.int8_gop_s, 401);
  EXPECT_EQ(ceilings.bf16_gop_s, 200);
}

TEST(CeilingsTest, MeasuringAgainNeverLowers) {
  Ceilings ceilings = RoundCeilings();
  ceilings.fp32_gop_s = 1e9;
  ceilings.dram_read_gb_s = 1e-9;
  ASSERT_TRUE(MeasureAgain(QuickCeilings(), &ceilings).ok());
  EXPECT_EQ(ceilings.fp32_gop_s, 1e9);
  EXPECT_GT(ceilings.dram_read_gb_s, 1e-9);
}

TEST(CeilingsTest, RefusesOptionsWithoutSense) {
  const auto code = [](const CeilingOptions& options) {
    return MeasureCeilings(options).status().code();
  };
  EXPECT_EQ(code({.threads = -1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.rounds = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.dram_buffer_bytes = -1}), absl::StatusCode::kInvalidArgument);
}

TEST(CeilingsTest, AStopEndsAllThreads) {
  CeilingOptions options = QuickCeilings();
  options.threads = 3;
  options.stop = [] { return true; };
  EXPECT_EQ(MeasureCeilings(options).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace baton::bench
