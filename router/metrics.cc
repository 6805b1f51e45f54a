#include "router/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <utility>

namespace baton::router {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using prometheus::ClientMetric;
using prometheus::MetricFamily;

// vLLM's buckets, with finer ones below: a token may take a millisecond here.
const Buckets kFirstTokenBuckets{0.001, 0.005, 0.01, 0.02, 0.04, 0.06,  0.08,
                                 0.1,   0.25,  0.5,  0.75, 1.0,  2.5,   5.0,
                                 7.5,   10.0,  20.0, 40.0, 80.0, 160.0, 640.0};
const Buckets kInterTokenBuckets{0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                 0.2,   0.3,    0.4,   0.5,    0.75, 1.0,   2.5,  5.0,   10.0};
const Buckets kRequestBuckets{0.05, 0.1,  0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,
                              10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0};
const Buckets kHandoffBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                              0.025,  0.05,    0.1,    0.25,  0.5,    1.0,   5.0};

MetricFamily GaugeFamily(std::string name, std::string help) {
  return {std::move(name), std::move(help), prometheus::MetricType::Gauge, {}};
}

void Add(MetricFamily& family, std::vector<ClientMetric::Label> labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

void AddFleet(const std::vector<WorkerView>& fleet, const std::string& model_name,
              std::vector<MetricFamily>& families) {
  MetricFamily workers = GaugeFamily("baton_workers", "Workers known, by role and state.");
  MetricFamily usage = GaugeFamily("vllm:kv_cache_usage_perc",
                                   "Share of a worker's KV blocks held by requests, 0 to 1.");
  MetricFamily blocks = GaugeFamily("baton_kv_blocks", "KV blocks of a worker, by state.");
  MetricFamily requests = GaugeFamily("baton_worker_requests", "Requests at a worker, by state.");
  MetricFamily transfers = GaugeFamily("baton_handoffs_active", "KV handoffs under way.");
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const WorkerView& worker : fleet) {
    ++counts[{worker.role.empty() ? "unknown" : worker.role, worker.state}];
    if (worker.blocks_total == 0) continue;
    const auto label = [&worker](const char* state) -> std::vector<ClientMetric::Label> {
      return {{"worker", worker.name}, {"role", worker.role}, {"state", state}};
    };
    Add(blocks, label("free"), worker.blocks_free);
    Add(blocks, label("held"), worker.blocks_held);
    Add(blocks, label("cached"), worker.blocks_cached);
    Add(blocks, label("total"), worker.blocks_total);
    Add(requests, label("running"), worker.running);
    Add(requests, label("waiting"), worker.waiting);
    Add(transfers, {{"worker", worker.name}, {"role", worker.role}}, worker.transfers);
    Add(usage, {{"model_name", model_name}, {"engine", worker.name}},
        static_cast<double>(worker.blocks_held) / worker.blocks_total);
  }
  for (const auto& [key, count] : counts) {
    Add(workers, {{"role", key.first}, {"state", key.second}}, count);
  }
  for (MetricFamily* family : {&workers, &usage, &blocks, &requests, &transfers}) {
    families.push_back(std::move(*family));
  }
}

void AddDiskCaches(const std::vector<WorkerView>& fleet, std::vector<MetricFamily>& families) {
  MetricFamily on =
      GaugeFamily("baton_kv_disk_on", "1 while a worker's KV disk cache works, 0 when it failed.");
  MetricFamily held = GaugeFamily("baton_kv_disk_blocks", "KV blocks of a disk cache, by state.");
  MetricFamily events{"baton_kv_disk_events_total",
                      "KV blocks since the worker's start, by what the disk cache did with them.",
                      prometheus::MetricType::Counter,
                      {}};
  for (const WorkerView& worker : fleet) {
    const worker_link::DiskCacheStatus& disk = worker.disk;
    if (disk.blocks_total == 0) continue;
    Add(on, {{"worker", worker.name}}, disk.on ? 1 : 0);
    Add(held, {{"worker", worker.name}, {"state", "cached"}}, disk.blocks);
    Add(held, {{"worker", worker.name}, {"state", "total"}}, disk.blocks_total);
    const auto count = [&](const char* event, int64_t blocks) {
      ClientMetric metric;
      metric.label = {{"worker", worker.name}, {"event", event}};
      metric.counter.value = static_cast<double>(blocks);
      events.metric.push_back(std::move(metric));
    };
    count("hit", disk.blocks_hit);
    count("missed", disk.blocks_missed);
    count("read", disk.blocks_read);
    count("written", disk.blocks_written);
    count("dropped", disk.blocks_dropped);
    count("evicted", disk.blocks_evicted);
    count("damaged", disk.blocks_damaged);
  }
  for (MetricFamily* family : {&on, &held, &events}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
}

}  // namespace

struct RouterMetrics::Instruments {
  using Labels = std::map<std::string, std::string>;

  explicit Instruments(const Labels& model);

  prometheus::Counter& Counter(const char* name, const char* help, const Labels& labels) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Labels& labels,
                                   const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels,
                                                                                     buckets);
  }
  prometheus::Counter& Ended(const char* reason) {
    Labels labels = model;
    labels["finished_reason"] = reason;
    return Counter("vllm:request_success_total", "Requests that ended without an error.", labels);
  }

  const Labels model;
  prometheus::Registry registry;
  prometheus::Histogram& first_token;
  prometheus::Histogram& inter_token;
  prometheus::Histogram& end_to_end;
  prometheus::Histogram& prefill_queue;
  prometheus::Counter& prompt_tokens;
  prometheus::Counter& generation_tokens;
  prometheus::Counter& prefix_queries;
  prometheus::Counter& prefix_hits;
  prometheus::Counter& placed_again;
  prometheus::Counter& finished_stop;
  prometheus::Counter& finished_length;
  prometheus::Counter& finished_abort;
};

RouterMetrics::Instruments::Instruments(const Labels& model_labels)
    : model(model_labels),
      first_token(Histogram("vllm:time_to_first_token_seconds",
                            "From a request's arrival to its first token.", model,
                            kFirstTokenBuckets)),
      inter_token(Histogram("vllm:inter_token_latency_seconds", "Between a request's tokens.",
                            model, kInterTokenBuckets)),
      end_to_end(Histogram("vllm:e2e_request_latency_seconds",
                           "From a request's arrival to its finish.", model, kRequestBuckets)),
      prefill_queue(Histogram("vllm:request_queue_time_seconds",
                              "How long a prompt waited at its prefill worker.", model,
                              kRequestBuckets)),
      prompt_tokens(
          Counter("vllm:prompt_tokens_total", "Prompt tokens of finished requests.", model)),
      generation_tokens(
          Counter("vllm:generation_tokens_total", "Tokens delivered to clients.", model)),
      prefix_queries(Counter("vllm:prefix_cache_queries_total",
                             "Prompt tokens looked up in the prefix caches.", model)),
      prefix_hits(Counter("vllm:prefix_cache_hits_total",
                          "Prompt tokens found in the prefix caches.", model)),
      placed_again(Counter("baton_requests_placed_again_total",
                           "Requests placed again because a worker was lost or failed.", {})),
      finished_stop(Ended("stop")),
      finished_length(Ended("length")),
      finished_abort(Ended("abort")) {}

RouterMetrics::RouterMetrics(const std::string& model_name)
    : model_name_(model_name),
      instruments_(std::make_unique<Instruments>(Instruments::Labels{{"model_name", model_name}})) {
}

RouterMetrics::~RouterMetrics() = default;

void RouterMetrics::OnFirstToken(Duration since_arrival) {
  instruments_->generation_tokens.Increment();
  instruments_->first_token.Observe(Seconds(since_arrival));
}

void RouterMetrics::OnMoreTokens(Duration since_last, size_t tokens) {
  instruments_->generation_tokens.Increment(static_cast<double>(tokens));
  for (size_t i = 0; i < tokens; ++i) {
    instruments_->inter_token.Observe(Seconds(since_last) / static_cast<double>(tokens));
  }
}

void RouterMetrics::OnFinish(const Finish& finish, const FlowTimes& times) {
  Instruments& to = *instruments_;
  (finish.reason == FinishReason::kStop ? to.finished_stop : to.finished_length).Increment();
  to.end_to_end.Observe(finish.stats.total_s);
  to.prompt_tokens.Increment(finish.prompt_tokens);
  to.prefix_queries.Increment(finish.prompt_tokens);
  to.prefix_hits.Increment(finish.stats.cached_prompt_tokens);
  if (times.prefill_queue) to.prefill_queue.Observe(Seconds(*times.prefill_queue));
  if (!times.finished || times.finished->kv_bytes_moved == 0) return;
  const Instruments::Labels labels{{"transport", times.finished->transport}};
  to.Counter("baton_handoff_bytes_total", "KV bytes moved to decode workers.", labels)
      .Increment(static_cast<double>(times.finished->kv_bytes_moved));
  to.Histogram("baton_handoff_seconds", "How long a prompt's KV was on its way.", labels,
               kHandoffBuckets)
      .Observe(Seconds(times.finished->handoff));
  to.Histogram("baton_handoff_exposed_seconds", "The part of a handoff that prefill did not hide.",
               labels, kHandoffBuckets)
      .Observe(Seconds(times.finished->handoff_exposed));
}

void RouterMetrics::OnError(const absl::Status& status) {
  instruments_
      ->Counter("baton_request_errors_total", "Well-formed requests that ended with an error.",
                {{"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void RouterMetrics::OnCancelled() { instruments_->finished_abort.Increment(); }

void RouterMetrics::OnPlacedAgain() { instruments_->placed_again.Increment(); }

std::string RouterMetrics::Text(int32_t requests_running, int32_t requests_waiting,
                                const std::vector<WorkerView>& fleet) const {
  std::vector<MetricFamily> families = instruments_->registry.Collect();
  MetricFamily running =
      GaugeFamily("vllm:num_requests_running", "Requests that this router has at workers.");
  MetricFamily waiting =
      GaugeFamily("vllm:num_requests_waiting", "Requests that wait here for a worker.");
  Add(running, {{"model_name", model_name_}}, requests_running);
  Add(waiting, {{"model_name", model_name_}}, requests_waiting);
  families.push_back(std::move(running));
  families.push_back(std::move(waiting));
  AddFleet(fleet, model_name_, families);
  AddDiskCaches(fleet, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace baton::router
