// What only the AMX level promises. The other tests take it as one more instruction set.

#include <gtest/gtest.h>

#include <thread>

#include "kernels/cpu/cpu_isa.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

class AmxTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto isa = ResolveCpuIsa(CpuIsa::kAmx);
    if (!isa.ok()) GTEST_SKIP() << isa.status().message();
  }
};

std::vector<float> Multiply(Ops& ops, const TestMatrix& matrix, std::span<const float> x,
                            std::vector<float> out) {
  const auto loaded = *ops.LoadMatrix(matrix.host);
  const Matrix* weights[] = {loaded.get()};
  float* outs[] = {out.data()};
  ops.MatMul(weights, x.data(), static_cast<int32_t>(std::ssize(x) / matrix.host.cols), outs, true);
  return out;
}

TEST_F(AmxTest, AllButBf16HasTheBitsOfAvx512) {
  std::mt19937 random = TestRandom();
  constexpr int64_t kCols = 768 + 256;  // more than one block of inputs
  constexpr int64_t kColumns = 70;
  for (const DType dtype : kAllDTypes) {
    if (dtype == DType::kBF16) continue;
    // Formats in groups of 32 take an odd number of groups in the last block.
    const int64_t cols = Traits(dtype).block_elements == 32 ? kCols + 96 : kCols;
    const TestMatrix matrix = RandomMatrix(random, dtype, kColumns, cols);
    for (const int32_t rows : {1, 15, 16, 17, 24, 33, 64, 79, 201}) {
      const std::vector<float> x = RandomFloats(random, rows * cols);
      const std::vector<float> before = RandomFloats(random, rows * kColumns);
      EXPECT_TRUE(SameBits(Multiply(*CpuBackend(CpuIsa::kAmx, 2), matrix, x, before),
                           Multiply(*CpuBackend(CpuIsa::kAvx512, 2), matrix, x, before)))
          << Traits(dtype).name << " " << rows << " rows";
    }
  }
}

// Tiles take denormals as zero; so must the vectors that do the fewest rows.
TEST_F(AmxTest, SumsNearZeroAreTheSameInAnyBatch) {
  std::mt19937 random = TestRandom();
  constexpr int32_t kRows = 40;
  constexpr int64_t kColumns = 40;
  constexpr int64_t kCols = 600;
  const auto ops = CpuBackend(CpuIsa::kAmx, 1);
  const TestMatrix matrix = RandomMatrix(random, DType::kBF16, kColumns, kCols);
  for (const float deviation : {1e-35f, 1e-36f, 2e-37f}) {
    const std::vector<float> x = RandomFloats(random, kRows * kCols, deviation);
    const std::vector<float> zeros(kRows * kColumns);
    const auto all = Multiply(*ops, matrix, x, zeros);
    EXPECT_NE(all, zeros);
    for (const int32_t rows : {1, 2}) {
      for (int32_t row = 0; row < kRows; row += rows) {
        const auto part = std::span(x).subspan(row * kCols, rows * kCols);
        const auto out = Multiply(*ops, matrix, part, std::vector<float>(rows * kColumns));
        EXPECT_TRUE(SameBits(out, std::span(all).subspan(row * kColumns, rows * kColumns)))
            << rows << " rows from " << row << " of deviation " << deviation;
      }
    }
  }
}

#if defined(__x86_64__)

// Of this thread: whether the state components 17 and 18, tile configuration and data, are in use.
bool TilesAreInUse() {
  uint32_t low;
  uint32_t high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return (low & (3u << 17)) != 0;
}

// A thread's first use of tiles needs no more than the process' permission, and no tile state is
// left for context switches to save.
TEST_F(AmxTest, EveryThreadUsesTilesAndReleasesThem) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t rest[15] = {};
    uint16_t row_bytes[16] = {64};
    uint8_t rows[16] = {16};
  } config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  EXPECT_TRUE(TilesAreInUse());
  asm volatile("tilerelease");
  EXPECT_FALSE(TilesAreInUse());

  std::mt19937 random = TestRandom();
  constexpr int32_t kRows = 48;
  constexpr int64_t kCols = 256;
  for (const DType dtype : {DType::kBF16, DType::kQ8_0}) {
    const TestMatrix matrix = RandomMatrix(random, dtype, 64, kCols);
    const std::vector<float> x = RandomFloats(random, kRows * kCols);
    const std::vector<float> zeros(kRows * 64);
    const auto expected = Multiply(*CpuBackend(CpuIsa::kAmx, 1), matrix, x, zeros);
    EXPECT_FALSE(TilesAreInUse());
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        EXPECT_TRUE(SameBits(Multiply(*CpuBackend(CpuIsa::kAmx, 1), matrix, x, zeros), expected));
        EXPECT_FALSE(TilesAreInUse());
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

#endif

TEST(AmxAbsenceTest, IsRefusedWithTheReason) {
  const auto isa = ResolveCpuIsa(CpuIsa::kAmx);
  if (isa.ok()) GTEST_SKIP() << "this machine has amx";
  EXPECT_EQ(isa.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(isa.status().message().find("amx"), std::string::npos);
}

}  // namespace
}  // namespace baton::kernels
