#include "bench/dram_probe.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "kernels/cpu/isa_probes.h"

namespace baton::bench {
namespace {

// An instruction set whose read only counts. Each pattern is read by each thread.
std::atomic<int> reads{0};
std::atomic<int64_t> read_bytes{0};
uint64_t CountingRead(const uint8_t* from, int64_t bytes, int streams, int64_t) {
  EXPECT_EQ(bytes % (256 * streams), 0);
  EXPECT_EQ(from[0], 0);
  EXPECT_EQ(from[bytes - 1], 0);
  ++reads;
  read_bytes += bytes;
  return 0;
}

TEST(DramProbeTest, AllThreadsReadTheirShareWithEveryPattern) {
  kernels::IsaProbes counting{};
  counting.read = CountingRead;
  DramProbe probe(counting, 3, 3 << 20);
  for (int round = 1; round <= 2; ++round) {
    const double rate = probe.ReadGbS();
    EXPECT_TRUE(std::isfinite(rate));
    EXPECT_GT(rate, 0);
    EXPECT_EQ(reads, round * 3 * 5);
    EXPECT_EQ(read_bytes, int64_t{round} * 5 * (3 << 20));
  }
}

TEST(DramProbeTest, AProbeThatIsNeverAskedEnds) {
  DramProbe probe(kernels::portable::GetIsaProbes(), 4, 1);
}

}  // namespace
}  // namespace baton::bench
