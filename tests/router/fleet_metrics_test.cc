#include "router/fleet_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace baton::router {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string TextOf(const std::vector<WorkerView>& fleet) {
  std::vector<prometheus::MetricFamily> families;
  AddRequests("demo", 5, 2, families);
  AddFleet("demo", fleet, families);
  return prometheus::TextSerializer().Serialize(families);
}

WorkerView Worker(const std::string& name, const std::string& role) {
  WorkerView worker;
  worker.name = name;
  worker.role = role;
  worker.state = "ready";
  worker.running = 3;
  worker.blocks_free = 60;
  worker.blocks_held = 25;
  worker.blocks_cached = 15;
  worker.blocks_total = 100;
  return worker;
}

TEST(FleetMetricsTest, ShowsRequestsLoadAndBlocks) {
  WorkerView unknown;
  unknown.state = "connecting";
  const std::string text = TextOf({Worker("decode-0", "decode"), unknown});
  for (const char* line : {
           "# TYPE baton_kv_blocks gauge",
           "vllm:num_requests_running{model_name=\"demo\"} 5",
           "vllm:num_requests_waiting{model_name=\"demo\"} 2",
           "baton_workers{role=\"decode\",state=\"ready\"} 1",
           "baton_workers{role=\"unknown\",state=\"connecting\"} 1",
           "baton_kv_blocks{worker=\"decode-0\",role=\"decode\",state=\"held\"} 25",
           "baton_worker_requests{worker=\"decode-0\",role=\"decode\",state=\"running\"} 3",
           "vllm:kv_cache_usage_perc{model_name=\"demo\",engine=\"decode-0\"} 0.25",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(TextOf({}), Not(HasSubstr("decode-0")));
}

TEST(FleetMetricsTest, ShowsEachMeasuredPathAndWhichIsInUse) {
  WorkerView decode = Worker("d0", "decode");
  decode.paths = {{"p0", "shm", 6e9, 12e9, true}, {"p0", "ucx tcp", 5e8, 1.1e9, false}};
  const std::string text = TextOf({decode});
  for (const char* line : {
           "# TYPE baton_kv_path_bytes_per_second gauge",
           "baton_kv_path_bytes_per_second{source=\"p0\",target=\"d0\",transport=\"shm\"} "
           "6000000000",
           "baton_kv_path_bytes_per_second{source=\"p0\",target=\"d0\",transport=\"ucx tcp\"} "
           "500000000",
           "baton_kv_path_expected_bytes_per_second{source=\"p0\",target=\"d0\",transport=\"shm\"} "
           "12000000000",
           "baton_kv_path_in_use{source=\"p0\",target=\"d0\",transport=\"shm\"} 1",
           "baton_kv_path_in_use{source=\"p0\",target=\"d0\",transport=\"ucx tcp\"} 0",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  decode.paths.clear();
  EXPECT_THAT(TextOf({decode}), Not(HasSubstr("source=")));
}

TEST(FleetMetricsTest, CountsWhatAWorkerOfEachKindTookFromOthers) {
  WorkerView decode = Worker("d0", "decode");
  decode.kv = {
      .handoffs = 5, .handoffs_failed = 2, .handoffs_converted = 3, .checksum_mismatches = 1};
  WorkerView prefill = Worker("p0", "prefill");
  prefill.kv = {.checksum_mismatches = 7,
                .prefixes_fetched = 8,
                .prefixes_not_offered = 9,
                .prefixes_refused = 10,
                .prefixes_failed = 11,
                .prefix_tokens_fetched = 1200,
                .prefix_bytes_fetched = 1300};
  const std::string text = TextOf({decode, prefill});
  for (const char* line : {
           "# TYPE baton_kv_conversions_total counter",
           "baton_worker_handoffs_total{worker=\"d0\",role=\"decode\",result=\"ok\"} 5\n",
           "baton_worker_handoffs_total{worker=\"d0\",role=\"decode\",result=\"failed\"} 2\n",
           "baton_kv_conversions_total{worker=\"d0\",role=\"decode\"} 3\n",
           "baton_kv_checksum_mismatches_total{worker=\"d0\",role=\"decode\"} 1\n",
           "baton_kv_checksum_mismatches_total{worker=\"p0\",role=\"prefill\"} 7\n",
           "baton_prefix_fetches_total{worker=\"p0\",role=\"prefill\",result=\"ok\"} 8\n",
           "baton_prefix_fetches_total{worker=\"p0\",role=\"prefill\",result=\"not_offered\"} 9\n",
           "baton_prefix_fetches_total{worker=\"p0\",role=\"prefill\",result=\"refused\"} 10\n",
           "baton_prefix_fetches_total{worker=\"p0\",role=\"prefill\",result=\"failed\"} 11\n",
           "baton_prefix_fetched_tokens_total{worker=\"p0\",role=\"prefill\"} 1200\n",
           "baton_prefix_fetched_bytes_total{worker=\"p0\",role=\"prefill\"} 1300\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("baton_prefix_fetches_total{worker=\"d0\"")));
}

TEST(FleetMetricsTest, ShowsWhichSourcesOfWorkersAnswer) {
  const std::string text = DiscoveryMetricsText(
      {{"etcd", "/baton/", false, "gone", 3, 7}, {"dns", "workers:7000", true, "", 0, 2}});
  for (const char* line : {
           "baton_discovery_current{source=\"etcd\",where=\"/baton/\"} 0",
           "baton_discovery_current{source=\"dns\",where=\"workers:7000\"} 1",
           "baton_discovery_workers{source=\"etcd\",where=\"/baton/\"} 7",
           "baton_discovery_failures_total{source=\"etcd\",where=\"/baton/\"} 3",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_EQ(DiscoveryMetricsText({}), "");
}

}  // namespace
}  // namespace baton::router
