#include "bench/dram_probe.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "kernels/cpu/isa_probes.h"

namespace baton::bench {
namespace {

// An instruction set whose read only counts.
std::atomic<int64_t> read_bytes{0};
uint64_t CountingRead(const uint8_t* from, int64_t bytes, int streams, int64_t) {
  EXPECT_EQ(bytes % (256 * streams), 0);
  EXPECT_EQ(from[0], 0);
  EXPECT_EQ(from[bytes - 1], 0);
  read_bytes += bytes;
  return 0;
}

// At least one thread reads all of its memory with each of five patterns, and none more than that.
TEST(DramProbeTest, ThreadsReadUntilTheFirstIsDone) {
  constexpr int64_t kThreadBytes = 5 << 20;
  kernels::IsaProbes counting{};
  counting.read = CountingRead;
  DramProbe probe(counting, 3, 3 * kThreadBytes);
  for (int round = 1; round <= 20; ++round) {
    read_bytes = 0;
    const double rate = probe.ReadGbS();
    EXPECT_TRUE(std::isfinite(rate));
    EXPECT_GT(rate, 0);
    EXPECT_GE(read_bytes, 5 * kThreadBytes);
    EXPECT_LE(read_bytes, 5 * 3 * kThreadBytes);
  }
}

TEST(DramProbeTest, OneThreadReadsEverything) {
  kernels::IsaProbes counting{};
  counting.read = CountingRead;
  DramProbe probe(counting, 1, 5 << 20);
  read_bytes = 0;
  EXPECT_GT(probe.ReadGbS(), 0);
  EXPECT_EQ(read_bytes, 5 * (5 << 20));
}

TEST(DramProbeTest, AProbeThatIsNeverAskedEnds) {
  DramProbe probe(kernels::portable::GetIsaProbes(), 4, 1);
}

}  // namespace
}  // namespace baton::bench
