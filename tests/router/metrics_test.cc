#include "router/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

TEST(MetricsTest, CarriesVllmsNamesWithTheModel) {
  RouterMetrics metrics("demo");
  metrics.OnFirstToken(milliseconds(70));
  metrics.OnMoreTokens(milliseconds(20), 2);
  Finish finish;
  finish.reason = FinishReason::kLength;
  finish.prompt_tokens = 11;
  finish.output_tokens = 3;
  finish.stats.cached_prompt_tokens = 4;
  finish.stats.total_s = 0.09;
  FlowTimes times;
  finish.stats.mean_itl_s = 0.5;
  times.prefill.emplace();
  times.prefill->queue = milliseconds(375);
  times.prefill->fetch = milliseconds(250);
  times.prefill->compute = milliseconds(1000);
  times.finished.emplace();
  times.finished->transport = "shm";
  times.finished->kv_bytes_moved = 4096;
  times.finished->handoff = milliseconds(2);
  metrics.OnFinish(finish, times, milliseconds(125));
  const std::string text = metrics.Text(5, 2, {});
  for (const char* line : {
           "vllm:time_to_first_token_seconds_count{model_name=\"demo\"} 1",
           "vllm:time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.08\"} 1",
           "vllm:inter_token_latency_seconds_count{model_name=\"demo\"} 2",
           "vllm:inter_token_latency_seconds_bucket{model_name=\"demo\",le=\"0.0075\"} 0",
           "vllm:inter_token_latency_seconds_bucket{model_name=\"demo\",le=\"0.01\"} 2",
           "vllm:e2e_request_latency_seconds_count{model_name=\"demo\"} 1",
           "vllm:request_queue_time_seconds_sum{model_name=\"demo\"} 0.5",
           "vllm:request_prefill_time_seconds_sum{model_name=\"demo\"} 1.25",
           "vllm:request_decode_time_seconds_sum{model_name=\"demo\"} 1",
           "vllm:request_inference_time_seconds_sum{model_name=\"demo\"} 2.25",
           "vllm:request_time_per_output_token_seconds_sum{model_name=\"demo\"} 0.5",
           "vllm:request_prompt_tokens_bucket{model_name=\"demo\",le=\"10\"} 0",
           "vllm:request_prompt_tokens_bucket{model_name=\"demo\",le=\"20\"} 1",
           "vllm:request_generation_tokens_sum{model_name=\"demo\"} 3",
           "vllm:prompt_tokens_total{model_name=\"demo\"} 11",
           "vllm:generation_tokens_total{model_name=\"demo\"} 3",
           "vllm:prefix_cache_queries_total{model_name=\"demo\"} 11",
           "vllm:prefix_cache_hits_total{model_name=\"demo\"} 4",
           "vllm:request_success_total{finished_reason=\"length\",model_name=\"demo\"} 1",
           "vllm:request_success_total{finished_reason=\"stop\",model_name=\"demo\"} 0",
           "vllm:num_requests_running{model_name=\"demo\"} 5",
           "vllm:num_requests_waiting{model_name=\"demo\"} 2",
           "baton_handoff_bytes_total{transport=\"shm\"} 4096",
           "baton_handoff_seconds_count{transport=\"shm\"} 1",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(MetricsTest, CountsErrorsByCodeAndWhatWasPlacedAgain) {
  RouterMetrics metrics("demo");
  metrics.OnError(absl::UnavailableError("x"));
  metrics.OnError(absl::UnavailableError("y"));
  metrics.OnCancelled();
  metrics.OnPlacedAgain("lost", true);
  const std::string text = metrics.Text(0, 0, {});
  EXPECT_THAT(text, HasSubstr("baton_request_errors_total{code=\"UNAVAILABLE\"} 2"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"abort\",model_name=\"demo\"} 1"));
  EXPECT_THAT(text, HasSubstr("baton_requests_placed_again_total 1"));
  EXPECT_THAT(text, HasSubstr("baton_migrations_total{reason=\"lost\"} 1"));
}

TEST(MetricsTest, TellsHowMuchOfATransferPrefillHid) {
  RouterMetrics metrics("demo");
  FlowTimes times;
  times.finished.emplace();
  times.finished->transport = "shm";
  times.finished->kv_bytes_moved = 4096;
  times.finished->handoff = milliseconds(500);
  times.finished->handoff_moving = milliseconds(250);
  times.finished->handoff_exposed = milliseconds(125);
  metrics.OnFinish({}, times);
  times.finished->handover = milliseconds(250);
  metrics.OnFinish({}, times);
  const std::string text = metrics.Text(0, 0, {});
  EXPECT_THAT(text, HasSubstr("baton_handoff_seconds_sum{transport=\"shm\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("baton_handoff_moving_seconds_sum{transport=\"shm\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("baton_handoff_exposed_seconds_sum{transport=\"shm\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("baton_handover_seconds_sum{transport=\"shm\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("baton_handover_seconds_count{transport=\"shm\"} 1\n"));
}

TEST(MetricsTest, ShowsTheFleetOfTheMoment) {
  RouterMetrics metrics("demo");
  WorkerView worker;
  worker.name = "decode-0";
  worker.role = "decode";
  worker.state = "ready";
  worker.blocks_total = 8;
  worker.steps.seconds = 2.5;
  worker.preemptions = 3;
  for (const char* line : {
           "baton_workers{role=\"decode\",state=\"ready\"} 1",
           "baton_worker_busy_seconds_total{worker=\"decode-0\",role=\"decode\"} 2.5",
           "vllm:num_preemptions_total{model_name=\"demo\",engine=\"decode-0\"} 3",
       }) {
    EXPECT_THAT(metrics.Text(0, 0, {worker}), HasSubstr(line));
  }
  EXPECT_THAT(metrics.Text(0, 0, {}), Not(HasSubstr("state=\"ready\"")));
}

TEST(MetricsTest, ShowsDiskCachesWhereThereAreSome) {
  RouterMetrics metrics("demo");
  WorkerView worker;
  worker.name = "prefill-0";
  worker.role = "prefill";
  worker.blocks_total = 100;
  EXPECT_THAT(metrics.Text(0, 0, {worker}), Not(HasSubstr("baton_kv_disk")));
  worker.disk = {.on = true,
                 .blocks = 7,
                 .blocks_total = 50,
                 .blocks_hit = 1,
                 .blocks_missed = 2,
                 .blocks_read = 3,
                 .blocks_written = 4,
                 .blocks_dropped = 5,
                 .blocks_evicted = 6,
                 .blocks_damaged = 8};
  const std::string text = metrics.Text(0, 0, {worker});
  for (const char* line : {
           "# TYPE baton_kv_disk_events_total counter",
           "baton_kv_disk_on{worker=\"prefill-0\"} 1",
           "baton_kv_disk_blocks{worker=\"prefill-0\",state=\"cached\"} 7",
           "baton_kv_disk_blocks{worker=\"prefill-0\",state=\"total\"} 50",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"hit\"} 1",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"missed\"} 2",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"read\"} 3",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"written\"} 4",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"dropped\"} 5",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"evicted\"} 6",
           "baton_kv_disk_events_total{worker=\"prefill-0\",event=\"damaged\"} 8",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace baton::router
