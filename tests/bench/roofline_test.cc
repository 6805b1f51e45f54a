#include "bench/roofline.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/bench/bench_testing.h"

namespace baton::bench {
namespace {

constexpr int64_t kLarge = int64_t{1} << 30;

Work Dot(double bytes, double ops, bool told_in_ops) {
  return {bytes, kLarge, ops, Arithmetic::kInt8, told_in_ops};
}

// 1 GB needs 0.1 s, in which INT8 does 40e9 operations.
TEST(RooflineTest, WorkInBytes) {
  const Ceilings ceilings = RoundCeilings();
  const Reached memory = Reach(Dot(1e9, 30e9, false), ceilings, 0.2);
  EXPECT_EQ(memory.unit, "GB/s");
  EXPECT_DOUBLE_EQ(memory.value, 5);
  EXPECT_DOUBLE_EQ(*memory.ceiling, 10);
  // Twice the operations that fit beside the bytes: half the bytes a second.
  const Reached arithmetic = Reach(Dot(1e9, 80e9, false), ceilings, 0.2);
  EXPECT_EQ(arithmetic.unit, "GB/s");
  EXPECT_DOUBLE_EQ(*arithmetic.ceiling, 5);
}

TEST(RooflineTest, WorkInOperations) {
  const Ceilings ceilings = RoundCeilings();
  const Reached arithmetic = Reach(Dot(1e9, 80e9, true), ceilings, 0.4);
  EXPECT_EQ(arithmetic.unit, "GOP/s");
  EXPECT_DOUBLE_EQ(arithmetic.value, 200);
  EXPECT_DOUBLE_EQ(*arithmetic.ceiling, 400);
  const Reached memory = Reach(Dot(1e9, 20e9, true), ceilings, 0.2);
  EXPECT_EQ(memory.unit, "GOP/s");
  EXPECT_DOUBLE_EQ(memory.value, 100);
  EXPECT_DOUBLE_EQ(*memory.ceiling, 200);
  const Reached fp32 = Reach({1e9, kLarge, 41e9, Arithmetic::kFp32, true}, ceilings, 0.5);
  EXPECT_EQ(fp32.unit, "GFLOP/s");
  EXPECT_DOUBLE_EQ(*fp32.ceiling, 100);
}

// The share is that of the time at the ceilings, in whichever unit it is told.
TEST(RooflineTest, TheUnitDoesNotChangeTheShare) {
  const Ceilings ceilings = RoundCeilings();
  for (const double ops : {1e9, 39e9, 41e9, 400e9}) {
    const Reached bytes = Reach(Dot(1e9, ops, false), ceilings, 1.5);
    const Reached operations = Reach(Dot(1e9, ops, true), ceilings, 1.5);
    EXPECT_DOUBLE_EQ(bytes.value / *bytes.ceiling, operations.value / *operations.ceiling);
    EXPECT_DOUBLE_EQ(bytes.value / *bytes.ceiling, std::max(0.1, ops / 400e9) / 1.5);
  }
}

TEST(RooflineTest, MovingBytesIsBoundByTheirMemory) {
  const Ceilings ceilings = RoundCeilings();
  EXPECT_DOUBLE_EQ(*Reach({1e6, 1 << 20}, ceilings, 1).ceiling, 80);
  EXPECT_DOUBLE_EQ(*Reach({1e6, kLarge}, ceilings, 1).ceiling, 10);
}

TEST(RooflineTest, WithoutADotCeilingOnlyMemoryBinds) {
  Ceilings ceilings = RoundCeilings();
  ceilings.int8_gop_s.reset();
  EXPECT_DOUBLE_EQ(*Reach(Dot(1e9, 8e12, false), ceilings, 1).ceiling, 10);
  const Reached unbound = Reach(Dot(1e9, 9e9, true), ceilings, 1);
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
  EXPECT_EQ(ArithmeticOf(kernels::KvDType::kBF16, ceilings), Arithmetic::kBf16);
  EXPECT_EQ(ArithmeticOf(kernels::KvDType::kInt8, ceilings), Arithmetic::kFp32);
  ceilings.bf16_gop_s.reset();
  EXPECT_EQ(ArithmeticOf(DType::kBF16, ceilings), Arithmetic::kFp32);
  EXPECT_EQ(ArithmeticOf(kernels::KvDType::kBF16, ceilings), Arithmetic::kFp32);
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
