#include "bench/fleet_samples.h"

#include <gtest/gtest.h>

namespace baton::bench {
namespace {

TEST(FleetSamplesTest, WorkersOfARoleAreAddedUp) {
  const auto sample = FleetSampleOf(
      "# TYPE baton_worker_requests gauge\n"
      "baton_worker_requests{worker=\"p0\",role=\"prefill\",state=\"running\"} 1\n"
      "baton_worker_requests{worker=\"p0\",role=\"prefill\",state=\"waiting\"} 4\n"
      "baton_worker_requests{worker=\"d0\",role=\"decode\",state=\"running\"} 0\n"
      "baton_worker_requests{worker=\"d1\",role=\"decode\",state=\"running\"} 7\n"
      "baton_kv_blocks{worker=\"d1\",role=\"decode\",state=\"held\"} 30\n"
      "baton_kv_blocks{worker=\"d1\",role=\"decode\",state=\"free\"} 60\n"
      "baton_kv_blocks{worker=\"d1\",role=\"decode\",state=\"total\"} 1e2\n");
  ASSERT_TRUE(sample.has_value());
  EXPECT_EQ(sample->prefill.workers, 1);
  EXPECT_EQ(sample->prefill.busy, 1);
  EXPECT_EQ(sample->prefill.waiting, 4);
  EXPECT_EQ(sample->decode.workers, 2);
  EXPECT_EQ(sample->decode.busy, 1);
  EXPECT_EQ(sample->decode.running, 7);
  EXPECT_EQ(sample->decode.blocks_held, 30);
  EXPECT_EQ(sample->decode.blocks_total, 100);
}

TEST(FleetSamplesTest, OtherServersHaveNone) {
  EXPECT_FALSE(FleetSampleOf("").has_value());
  EXPECT_FALSE(FleetSampleOf("vllm:num_requests_running{model_name=\"m\"} 3\n}{\nx{").has_value());
}

}  // namespace
}  // namespace baton::bench
