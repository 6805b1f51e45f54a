#include "bench/process_stat.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "common/clock.h"

namespace baton::bench {
namespace {

TEST(ProcessStatTest, OddNamesDoNotMoveTheFields) {
  const auto cpu = CpuSecondsOf("12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0", 100);
  ASSERT_TRUE(cpu.ok());
  EXPECT_DOUBLE_EQ(*cpu, 2);
  EXPECT_FALSE(CpuSecondsOf("12 (a) S 1 2", 100).ok());
  EXPECT_FALSE(CpuSecondsOf("", 100).ok());
}

TEST(ProcessStatTest, ThisProcessUsesCpuAndMemory) {
  const auto before = ReadProcessStat(getpid());
  ASSERT_TRUE(before.ok());
  EXPECT_GT(before->resident_bytes, 1 << 20);
  volatile double sum = 0;
  auto after = before;
  while (after.ok() && after->cpu_s < before->cpu_s + 0.05) {
    for (int i = 0; i < 100000; ++i) sum = sum + i;
    after = ReadProcessStat(getpid());
  }
  EXPECT_TRUE(after.ok());
}

TEST(ProcessStatTest, AProcessThatIsNotThereIsAnError) {
  EXPECT_EQ(ReadProcessStat(0x7FFFFFFF).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(PinProcess(0x7FFFFFFF, {0}).ok());
}

TEST(ProcessStatTest, APinnedProcessStaysWhereItIsPut) {
  const std::vector<int> all = AllowedCpus();
  ASSERT_FALSE(all.empty());
  ASSERT_TRUE(PinProcess(getpid(), {all.back()}).ok());
  EXPECT_EQ(AllowedCpus(), std::vector<int>{all.back()});
  ASSERT_TRUE(PinProcess(getpid(), all).ok());
  EXPECT_EQ(AllowedCpus(), all);
}

}  // namespace
}  // namespace baton::bench
