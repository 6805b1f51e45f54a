#include "bench/roofline.h"

#include <gtest/gtest.h>

#include "tests/bench/bench_testing.h"

namespace baton::bench {
namespace {

constexpr int64_t kLarge = int64_t{1} << 30;

TEST(RooflineTest, TheCeilingThatNeedsTheMostTimeBinds) {
  const Ceilings ceilings = RoundCeilings();
  // 1 GB needs 0.1 s; INT8 does 40e9 operations in that.
  const Reached memory = Reach({1e9, kLarge, 39e9, Arithmetic::kInt8}, ceilings, 0.2);
  EXPECT_EQ(memory.unit, "GB/s");
  EXPECT_DOUBLE_EQ(memory.value, 5);
  EXPECT_EQ(memory.ceiling, 10);
  const Reached dot = Reach({1e9, kLarge, 41e9, Arithmetic::kInt8}, ceilings, 0.2);
  EXPECT_EQ(dot.unit, "GOP/s");
  EXPECT_DOUBLE_EQ(dot.value, 205);
  EXPECT_EQ(dot.ceiling, 400);
  const Reached fp32 = Reach({1e9, kLarge, 41e9, Arithmetic::kFp32}, ceilings, 0.5);
  EXPECT_EQ(fp32.unit, "GFLOP/s");
  EXPECT_EQ(fp32.ceiling, 100);
}

TEST(RooflineTest, MovingBytesIsBoundByTheirMemory) {
  const Ceilings ceilings = RoundCeilings();
  EXPECT_EQ(Reach({.bytes = 1e6, .working_set_bytes = 1 << 20}, ceilings, 1).ceiling, 80);
  EXPECT_EQ(Reach({.bytes = 1e6, .working_set_bytes = kLarge}, ceilings, 1).ceiling, 10);
}

TEST(RooflineTest, WithoutADotCeilingOnlyMemoryBinds) {
  Ceilings ceilings = RoundCeilings();
  ceilings.int8_gop_s.reset();
  EXPECT_EQ(Reach({1e9, kLarge, 8e9, Arithmetic::kInt8}, ceilings, 1).ceiling, 10);
  const Reached unbound = Reach({1e9, kLarge, 9e9, Arithmetic::kInt8}, ceilings, 1);
  EXPECT_FALSE(unbound.ceiling.has_value());
  EXPECT_EQ(unbound.unit, "GOP/s");
  EXPECT_DOUBLE_EQ(unbound.value, 9);
}

TEST(RooflineTest, ArithmeticFollowsTheWeights) {
  Ceilings ceilings = RoundCeilings();
  EXPECT_EQ(ArithmeticOf(DType::kF32, ceilings), Arithmetic::kFp32);
  EXPECT_EQ(ArithmeticOf(DType::kF16, ceilings), Arithmetic::kFp32);
  EXPECT_EQ(ArithmeticOf(DType::kQ6_K, ceilings), Arithmetic::kInt8);
  EXPECT_EQ(ArithmeticOf(DType::kBF16, ceilings), Arithmetic::kBf16);
  ceilings.bf16_gop_s.reset();
  EXPECT_EQ(ArithmeticOf(DType::kBF16, ceilings), Arithmetic::kFp32);
}

TEST(RooflineTest, CeilingsByArithmetic) {
  const Ceilings ceilings = RoundCeilings();
  EXPECT_EQ(GopS(Arithmetic::kFp32, ceilings), 100);
  EXPECT_EQ(GopS(Arithmetic::kBf16, ceilings), 200);
  EXPECT_EQ(GopS(Arithmetic::kInt8, ceilings), 400);
  EXPECT_EQ(ArithmeticName(Arithmetic::kInt8), "INT8");
}

}  // namespace
}  // namespace baton::bench
