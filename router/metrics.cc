#include "router/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>
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
// Parts of a request: where it is fast they take milliseconds.
const Buckets kPartBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.3,   0.5,
                           0.8,   1.0,    1.5,   2.0,  2.5,   5.0,  10.0, 15.0,  20.0,
                           30.0,  40.0,   60.0,  120., 240.,  480., 960., 1920., 7680.};
const Buckets kTokenBuckets{1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                            2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
const Buckets kHandoffBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                              0.025,  0.05,    0.1,    0.25,  0.5,    1.0,   5.0};

}  // namespace

struct RouterMetrics::Instruments {
  using Labels = std::map<std::string, std::string>;

  explicit Instruments(const Labels& model);

  // A thousand streams have a thousand tokens a step: they are counted here, and told to the
  // library when somebody asks.
  class TokenCounts {
   public:
    void Add(double gap_s, uint64_t tokens) {
      const auto bucket = std::ranges::lower_bound(kInterTokenBuckets, gap_s);
      const auto at = static_cast<size_t>(bucket - kInterTokenBuckets.begin());
      in_bucket_[at].fetch_add(tokens, std::memory_order_relaxed);
      sum_ns_.fetch_add(static_cast<uint64_t>(std::max(gap_s, 0.0) * kNanoseconds) * tokens,
                        std::memory_order_relaxed);
    }
    void MoveTo(prometheus::Histogram& gaps, prometheus::Counter& tokens) {
      std::vector<double> counts;
      for (std::atomic<uint64_t>& count : in_bucket_) {
        counts.push_back(static_cast<double>(count.exchange(0, std::memory_order_relaxed)));
      }
      const uint64_t sum_ns = sum_ns_.exchange(0, std::memory_order_relaxed);
      gaps.ObserveMultiple(counts, static_cast<double>(sum_ns) / kNanoseconds);
      tokens.Increment(std::accumulate(counts.begin(), counts.end(), 0.0));
    }

   private:
    static constexpr double kNanoseconds = 1e9;

    std::vector<std::atomic<uint64_t>> in_bucket_ =
        std::vector<std::atomic<uint64_t>>(kInterTokenBuckets.size() + 1);
    std::atomic<uint64_t> sum_ns_{0};
  };

  prometheus::Counter& Counter(const char* name, const char* help, const Labels& labels) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Labels& labels,
                                   const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels,
                                                                                     buckets);
  }
  prometheus::Counter& Errors(absl::StatusCode code) {
    return Counter("baton_request_errors_total", "Well-formed requests that ended with an error.",
                   {{"code", absl::StatusCodeToString(code)}});
  }
  prometheus::Counter& Migrations(std::string_view reason) {
    return Counter("baton_migrations_total", "Streams that went on at another worker.",
                   {{"reason", std::string(reason)}});
  }
  prometheus::Counter& Ended(const char* reason) {
    Labels labels = model;
    labels["finished_reason"] = reason;
    return Counter("vllm:request_success_total", "Requests that ended without an error.", labels);
  }

  const Labels model;
  TokenCounts more_tokens;
  prometheus::Registry registry;
  prometheus::Histogram& first_token;
  prometheus::Histogram& inter_token;
  prometheus::Histogram& end_to_end;
  prometheus::Histogram& router_queue;
  prometheus::Histogram& queue;
  prometheus::Histogram& prefill;
  prometheus::Histogram& decode;
  prometheus::Histogram& inference;
  prometheus::Histogram& time_per_token;
  prometheus::Histogram& prompt_lengths;
  prometheus::Histogram& generation_lengths;
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
      router_queue(Histogram("baton_queue_seconds",
                             "How long requests waited in the router for their turn.", {},
                             kPartBuckets)),
      queue(Histogram("vllm:request_queue_time_seconds",
                      "How long a request waited, in the router and at the worker of its prompt.",
                      model, kPartBuckets)),
      prefill(Histogram("vllm:request_prefill_time_seconds",
                        "From the end of its wait to its first token, at the prompt's worker.",
                        model, kPartBuckets)),
      decode(Histogram("vllm:request_decode_time_seconds", "From its first token to its last.",
                       model, kPartBuckets)),
      inference(Histogram("vllm:request_inference_time_seconds", "Prefill and decode together.",
                          model, kPartBuckets)),
      time_per_token(Histogram("vllm:request_time_per_output_token_seconds",
                               "A request's mean time between tokens.", model, kInterTokenBuckets)),
      prompt_lengths(Histogram("vllm:request_prompt_tokens",
                               "Tokens of finished requests' prompts.", model, kTokenBuckets)),
      generation_lengths(Histogram("vllm:request_generation_tokens",
                                   "Tokens of finished requests' answers.", model, kTokenBuckets)),
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
      finished_abort(Ended("abort")) {
  // A rate needs to have seen them at 0.
  for (const MoveReason reason : {MoveReason::kLost, MoveReason::kStalled, MoveReason::kFailed,
                                  MoveReason::kRefused, MoveReason::kDrained}) {
    Migrations(MoveReasonName(reason));
  }
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kInternal}) {
    Errors(code);
  }
}

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
  instruments_->more_tokens.Add(Seconds(since_last) / static_cast<double>(tokens), tokens);
}

void RouterMetrics::OnLeftQueue(Duration waited) {
  instruments_->router_queue.Observe(Seconds(waited));
}

void RouterMetrics::OnFinish(const Finish& finish, const FlowTimes& times, Duration waited) {
  Instruments& to = *instruments_;
  (finish.reason == FinishReason::kStop ? to.finished_stop : to.finished_length).Increment();
  to.end_to_end.Observe(finish.stats.total_s);
  to.prompt_tokens.Increment(finish.prompt_tokens);
  to.prefix_queries.Increment(finish.prompt_tokens);
  to.prefix_hits.Increment(finish.stats.cached_prompt_tokens);
  to.prompt_lengths.Observe(finish.prompt_tokens);
  to.generation_lengths.Observe(finish.output_tokens);
  const double decode_s = finish.stats.mean_itl_s * std::max(0, finish.output_tokens - 1);
  if (finish.output_tokens > 1) {
    to.decode.Observe(decode_s);
    to.time_per_token.Observe(finish.stats.mean_itl_s);
  }
  if (times.prefill) {
    const double prefill_s = Seconds(times.prefill->fetch + times.prefill->compute);
    to.queue.Observe(Seconds(waited + times.prefill->queue));
    to.prefill.Observe(prefill_s);
    to.inference.Observe(prefill_s + decode_s);
  }
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
  instruments_->Errors(status.code()).Increment();
}

void RouterMetrics::OnCancelled() { instruments_->finished_abort.Increment(); }

void RouterMetrics::OnPlacedAgain(std::string_view reason, bool in_stream) {
  instruments_->placed_again.Increment();
  if (!in_stream) return;
  instruments_->Migrations(reason).Increment();
}

std::string RouterMetrics::Text(int32_t requests_running, int32_t requests_waiting,
                                const std::vector<WorkerView>& fleet) const {
  instruments_->more_tokens.MoveTo(instruments_->inter_token, instruments_->generation_tokens);
  std::vector<prometheus::MetricFamily> families = instruments_->registry.Collect();
  AddRequests(model_name_, requests_running, requests_waiting, families);
  AddFleet(model_name_, fleet, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace baton::router
