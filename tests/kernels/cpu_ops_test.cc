#include <gtest/gtest.h>
#include <sched.h>

#include "kernels/cpu/cpu_isa.h"
#include "tests/common/counting_new.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

TEST(CpuOpsTest, NamesInstructionSets) {
  EXPECT_EQ(*CpuIsaFromName("auto"), CpuIsa::kAuto);
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx}) {
    EXPECT_EQ(*CpuIsaFromName(CpuIsaName(isa)), isa);
  }
  const auto unknown = CpuIsaFromName("avx1024");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(unknown.status().message()).find("auto, portable, avx2, avx512, amx"),
            std::string::npos);
}

TEST(CpuOpsTest, AutoTakesTheBest) {
  const auto best = CreateCpuOps({.threads = 1});
  ASSERT_TRUE(best.ok());
  EXPECT_EQ((*best)->Describe(), CpuBackend(TestIsas().back(), 1)->Describe());
}

TEST(CpuOpsTest, RefusesImpossibleOptions) {
  EXPECT_EQ(CreateCpuOps({.threads = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCpuOps({.max_rows = 0}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuOpsTest, UsableCpusFollowsAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_GE(UsableCpus(), 1);
  EXPECT_LE(UsableCpus(), CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(UsableCpus(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(CpuOpsTest, LoadRefusesBadMatrix) {
  std::mt19937 random = TestRandom();
  const TestMatrix matrix = RandomMatrix(random, DType::kQ8_0, 4, 64);
  HostMatrix bad = matrix.host;
  bad.rows = 5;
  EXPECT_EQ(CpuBackend(CpuIsa::kAuto, 1)->LoadMatrix(bad).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateReferenceOps()->LoadMatrix(bad).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// After the first call of each shape, no op allocates.
TEST(CpuOpsTest, StepsDoNotAllocate) {
  std::mt19937 random = TestRandom();
  const auto ops = CpuBackend(CpuIsa::kAuto, 2);
  const auto matrix = *ops->LoadMatrix(RandomMatrix(random, DType::kQ4_1, 128, 128).host);
  const KvLayout layout{1, 2, 64, 16, KvDType::kF16};
  TestCache cache(layout, random, std::vector<int32_t>{600});
  const TestRope rope(RopePairs::kInterleaved, 64, 600);
  std::vector<float> x = RandomFloats(random, 500 * 128);
  std::vector<float> y(x.size());
  std::vector<TokenId> tokens(500, 3);
  const std::vector<SequenceRows> prompt = {{cache.table(0), 0, 0, 500}};
  const std::vector<SequenceRows> token = {{cache.table(0), 500, 0, 1}};
  const auto step = [&](const std::vector<SequenceRows>& rows) {
    const int32_t count = rows[0].row_count;
    const Matrix* weights[] = {matrix.get()};
    float* outs[] = {y.data()};
    ops->Embed(*matrix, std::span(tokens).first(count), x.data());
    ops->RmsNorm(x.data(), x.data(), count, 128, 1e-5f, y.data());
    ops->MatMul(weights, x.data(), count, outs, false);
    ops->RopeAndStoreKv(rope.rope, layout, cache.slab(), 0, 2, rows, y.data(), x.data(), x.data());
    ops->Attention({2, 0.125f}, layout, cache.slab(), 0, rows, y.data(), x.data());
    ops->SwiGlu(x.data(), y.data(), count, 128, x.data());
  };
  step(prompt);
  step(token);
  const int64_t before = test::Allocations();
  step(prompt);
  step(token);
  EXPECT_EQ(test::Allocations(), before);
}

}  // namespace
}  // namespace baton::kernels
