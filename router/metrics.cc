#include "router/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <utility>

#include "router/fleet_metrics.h"

namespace baton::router {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

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
                           "Requests placed again because a worker was lost, failed or drained.",
                           {})),
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

void RouterMetrics::OnLeftQueue(Duration waited) {
  instruments_
      ->Histogram("baton_queue_seconds", "How long requests waited in the router for their turn.",
                  {}, kHandoffBuckets)
      .Observe(Seconds(waited));
}

void RouterMetrics::OnFinish(const Finish& finish, const FlowTimes& times) {
  Instruments& to = *instruments_;
  (finish.reason == FinishReason::kStop ? to.finished_stop : to.finished_length).Increment();
  to.end_to_end.Observe(finish.stats.total_s);
  to.prompt_tokens.Increment(finish.prompt_tokens);
  to.prefix_queries.Increment(finish.prompt_tokens);
  to.prefix_hits.Increment(finish.stats.cached_prompt_tokens);
  if (times.prefill) to.prefill_queue.Observe(Seconds(times.prefill->queue));
  if (!times.finished || times.finished->kv_bytes_moved == 0) return;
  const Instruments::Labels labels{{"transport", times.finished->transport}};
  to.Counter("baton_handoff_bytes_total", "KV bytes moved to decode workers.", labels)
      .Increment(static_cast<double>(times.finished->kv_bytes_moved));
  to.Histogram("baton_handoff_seconds", "How long a prompt's KV was on its way.", labels,
               kHandoffBuckets)
      .Observe(Seconds(times.finished->handoff));
  to.Histogram("baton_handoff_moving_seconds",
               "The part of a handoff in which something complete was under way.", labels,
               kHandoffBuckets)
      .Observe(Seconds(times.finished->handoff_moving));
  to.Histogram("baton_handoff_exposed_seconds", "The part of a handoff that prefill did not hide.",
               labels, kHandoffBuckets)
      .Observe(Seconds(times.finished->handoff_exposed));
  if (times.finished->handover == Duration{}) return;  // it ended with its first token
  to.Histogram("baton_handover_seconds", "From the end of prefill to the first decode step.",
               labels, kHandoffBuckets)
      .Observe(Seconds(times.finished->handover));
}

void RouterMetrics::OnError(const absl::Status& status) {
  instruments_
      ->Counter("baton_request_errors_total", "Well-formed requests that ended with an error.",
                {{"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void RouterMetrics::OnCancelled() { instruments_->finished_abort.Increment(); }

void RouterMetrics::OnPlacedAgain(std::string_view reason, bool in_stream) {
  instruments_->placed_again.Increment();
  if (!in_stream) return;
  instruments_
      ->Counter("baton_migrations_total", "Streams that went on at another worker.",
                {{"reason", std::string(reason)}})
      .Increment();
}

std::string RouterMetrics::Text(int32_t requests_running, int32_t requests_waiting,
                                const std::vector<WorkerView>& fleet) const {
  std::vector<prometheus::MetricFamily> families = instruments_->registry.Collect();
  AddRequests(model_name_, requests_running, requests_waiting, families);
  AddFleet(model_name_, fleet, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace baton::router
