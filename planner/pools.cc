#include "planner/pools.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <utility>

#include "planner/numbers.h"

namespace baton::planner {
namespace {

constexpr int64_t kLargestBatch = 8192;
constexpr int kRateSteps = 24;  // of a bisection: a rate to one in ten million

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(
      std::min(p * static_cast<double>(values.size()), static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

// The largest rate up to `high` for which `holds`, which it does at 0.
double LargestRate(double high, const std::function<bool(double)>& holds) {
  double low = 0;
  for (int i = 0; i < kRateSteps; ++i) {
    const double middle = (low + high) / 2;
    (holds(middle) ? low : high) = middle;
  }
  return low;
}

double CachedTokens(const RequestLength& request, double hits_kept) {
  return std::min(request.input_tokens * request.cached_share * hits_kept,
                  request.input_tokens - 1);
}

double KvCacheTokens(const Deployment& deployment) {
  return std::max(0.0, KvCapacityBytes(deployment)) /
         KvBytesPerToken(deployment.model, deployment.precision);
}

// Standard deviation of one sequence's KV tokens, weighted as MeanContextTokens is.
double ContextSpread(const Workload& workload, double mean) {
  double sum = 0, weights = 0;
  for (const RequestLength& r : workload.requests) {
    const double middle = r.input_tokens + r.output_tokens / 2 - mean;
    sum += r.output_tokens * (middle * middle + r.output_tokens * r.output_tokens / 12);
    weights += r.output_tokens;
  }
  return std::sqrt(sum / weights);
}

// Sequences whose KV fits but for one time in forty: B c + 2 sqrt(B) s <= capacity.
int64_t SafeBatch(double capacity, double context, double spread) {
  const double root =
      (-2 * spread + std::sqrt(4 * spread * spread + 4 * context * capacity)) / (2 * context);
  return std::clamp<int64_t>(static_cast<int64_t>(root * root * (1 + 1e-12)), 1, kLargestBatch);
}

}  // namespace

PromptQueue::PromptQueue(const Workload& workload, std::vector<double> busy_s,
                         std::vector<double> alone_s)
    : arrivals_(workload.arrivals),
      arrival_s_(workload.arrival_s),
      busy_s_(std::move(busy_s)),
      alone_s_(std::move(alone_s)),
      service_(ServiceOf(busy_s_)) {}

double PromptQueue::Utilisation(double rate_per_s, int64_t workers) const {
  return rate_per_s * service_.mean_s / static_cast<double>(workers);
}

double PromptQueue::AlonePercentile(double p) const { return Percentile(alone_s_, p); }

double PromptQueue::TtftPercentile(double rate_per_s, int64_t workers, double p) const {
  if (Utilisation(rate_per_s, workers) >= 1) return kInfinity;
  if (!arrival_s_.empty()) return Replayed(rate_per_s, workers, p);
  const Wait wait = WaitFor({.per_s = rate_per_s, .scv = arrivals_.scv}, service_, workers);
  return ResponsePercentile(wait, alone_s_, p);
}

double PromptQueue::Replayed(double rate_per_s, int64_t workers, double p) const {
  const double slower = arrivals_.per_s / rate_per_s;
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int64_t i = 0; i < workers; ++i) free_at.push(-kInfinity);
  std::vector<double> ttft_s(busy_s_.size());
  for (size_t i = 0; i < busy_s_.size(); ++i) {
    const double now = arrival_s_[i] * slower;
    const double start = std::max(now, free_at.top());
    free_at.pop();
    free_at.push(start + busy_s_[i]);
    ttft_s[i] = start - now + alone_s_[i];
  }
  return Percentile(std::move(ttft_s), p);
}

double PromptQueue::MaxRate(int64_t workers, double ttft_s, double p) const {
  if (AlonePercentile(p) > ttft_s) return 0;
  return LargestRate(static_cast<double>(workers) / service_.mean_s,
                     [&](double rate) { return TtftPercentile(rate, workers, p) <= ttft_s; });
}

PromptQueue PrefillQueue(const Deployment& deployment, const Workload& workload, int64_t workers) {
  const double kept = workload.HitsKept(static_cast<double>(workers) * KvCacheTokens(deployment));
  std::vector<double> busy_s, alone_s;
  for (const RequestLength& request : workload.requests) {
    const double cached = CachedTokens(request, kept);
    busy_s.push_back(PrefillBusySeconds(deployment, request.input_tokens - cached, cached));
    alone_s.push_back(PrefillSeconds(deployment, request.input_tokens - cached, cached));
  }
  return PromptQueue(workload, std::move(busy_s), std::move(alone_s));
}

PromptQueue PrefillQueue(const MeasuredWorker& worker, const Workload& workload) {
  std::vector<double> busy_s;
  const double chunk = static_cast<double>(worker.chunk_tokens);
  for (const RequestLength& request : workload.requests) {
    const double cached = CachedTokens(request, 1);
    double seconds = 0;
    for (double at = cached; at < request.input_tokens; at += chunk) {
      const PromptRange range{.tokens = std::min(chunk, request.input_tokens - at),
                              .before_tokens = at};
      seconds += worker.step_s({.prompts = {&range, 1}});
    }
    busy_s.push_back(seconds);
  }
  std::vector<double> alone_s = busy_s;
  return PromptQueue(workload, std::move(busy_s), std::move(alone_s));
}

double MeanContextTokens(const Workload& workload) {
  double sum = 0, weights = 0;
  for (const RequestLength& r : workload.requests) {
    sum += r.output_tokens * (r.input_tokens + r.output_tokens / 2);
    weights += r.output_tokens;
  }
  return sum / weights;
}

DecodeBatch::DecodeBatch(const Deployment& deployment, const Workload& workload, int64_t limit)
    : arrivals_(workload.arrivals),
      context_tokens_(MeanContextTokens(workload)),
      mean_output_tokens_(workload.MeanOutput()) {
  const double spread_tokens = ContextSpread(workload, context_tokens_);
  const double capacity =
      static_cast<double>(MaxBatch(deployment, context_tokens_)) * context_tokens_;
  const int64_t most = limit > 0 ? std::min(limit, kLargestBatch)
                                 : SafeBatch(capacity, context_tokens_, spread_tokens);
  FillSteps([&](const StepLoad& load) { return planner::StepSeconds(deployment, load); },
            spread_tokens, most);
}

DecodeBatch::DecodeBatch(const MeasuredWorker& worker, const Workload& workload)
    : arrivals_(workload.arrivals),
      context_tokens_(MeanContextTokens(workload)),
      mean_output_tokens_(workload.MeanOutput()) {
  const double spread_tokens = ContextSpread(workload, context_tokens_);
  FillSteps(
      worker.step_s, spread_tokens,
      std::min(worker.max_batch, SafeBatch(worker.kv_tokens, context_tokens_, spread_tokens)));
}

void DecodeBatch::FillSteps(const StepCost& step_s, double spread_tokens, int64_t limit) {
  const auto seconds = [&](double batch, double context_tokens) {
    return step_s({.batch = batch, .context_tokens = batch * context_tokens});
  };
  // A step grows by the same for each token of context.
  gaps_.spread_s = spread_tokens / context_tokens_ *
                   std::max(0.0, seconds(1, 2 * context_tokens_) - seconds(1, context_tokens_));
  gaps_.first_share = 1 / std::max(1.0, mean_output_tokens_ - 1);
  step_s_.push_back(0);
  for (int64_t n = 1; n <= limit; ++n) {
    step_s_.push_back(seconds(static_cast<double>(n), context_tokens_));
  }
}

double DecodeBatch::StepSeconds(double batch) const {
  const auto n = static_cast<size_t>(
      std::clamp(std::ceil(batch), 1.0, static_cast<double>(step_s_.size() - 1)));
  return step_s_[n];
}

double DecodeBatch::Saturation() const {
  return DecodeRequestsPerSecond(static_cast<double>(limit()), step_s_.back(), mean_output_tokens_);
}

BatchDistribution DecodeBatch::At(double rate_per_s, int64_t workers) const {
  const double count = static_cast<double>(workers);
  // A stream shared out at random among many is nearer to Poisson for each.
  const double scv = 1 + (arrivals_.scv - 1) / count;
  return BatchesAt({.per_s = rate_per_s / count, .scv = scv}, mean_output_tokens_, step_s_);
}

double DecodeBatch::ItlPercentile(double rate_per_s, int64_t workers, double p) const {
  return At(rate_per_s, workers).GapPercentile(step_s_, p, gaps_);
}

double DecodeBatch::MaxRate(int64_t workers, double itl_s, double p) const {
  if (step_s_[1] > itl_s) return 0;
  return LargestRate(static_cast<double>(workers) * Saturation(), [&](double rate) {
    const BatchDistribution batches = At(rate, workers);
    if (!batches.stable || std::isinf(itl_s)) return batches.stable;
    return batches.waiting <= 1 - p && batches.GapsWithin(step_s_, itl_s, gaps_) >= p;
  });
}

namespace {

// Mixed workers with one size of chunk at one rate. A step that computes c tokens of a prompt
// beside the batch lies between a plain one and one with a full chunk, in proportion.
class MixedAtRate {
 public:
  MixedAtRate(const Deployment& deployment, const Workload& workload, int64_t workers, double chunk,
              const DecodeBatch& batch)
      : deployment_(deployment),
        workload_(workload),
        workers_(workers),
        chunk_(chunk),
        batch_(batch),
        mean_output_tokens_(workload.MeanOutput()) {
    const double kept = workload.HitsKept(static_cast<double>(workers) * KvCacheTokens(deployment));
    double steps = 0, tokens_sum = 0, squares = 0;
    for (const RequestLength& request : workload.requests) {
      const double tokens = request.input_tokens - CachedTokens(request, kept);
      prompt_tokens_.push_back(tokens);
      steps += std::ceil(tokens / chunk);
      tokens_sum += request.input_tokens;
      squares += request.input_tokens * request.input_tokens;
    }
    mean_steps_ = steps / static_cast<double>(prompt_tokens_.size());
    chunk_context_ = squares / tokens_sum / 2;  // before a token of a prompt, on average
  }

  bool Holds(double rate_per_s, double ttft_s, double itl_s, double p) const {
    const double rate = rate_per_s / static_cast<double>(workers_);
    const double tokens_per_s = rate * mean_output_tokens_;
    const double limit = static_cast<double>(batch_.limit());
    if (TokensPerSecond(rate, limit) < tokens_per_s) return false;
    double low = 0, n = limit;
    for (int i = 0; i < 20; ++i) {
      const double middle = (low + n) / 2;
      (TokensPerSecond(rate, middle) < tokens_per_s ? low : n) = middle;
    }
    const double at_percentile = n + 2.33 * std::sqrt(n);  // of a Poisson number of sequences
    if (at_percentile > limit) return false;
    const std::vector<double> prompts_s = PromptSeconds(n);
    const double mixed_per_s = rate * mean_steps_;
    const double plain_per_s = (1 - rate * ServiceOf(prompts_s).mean_s) / batch_.StepSeconds(n);
    const bool mixed_counts = mixed_per_s / (mixed_per_s + plain_per_s) > 1 - p;
    const double gap_s = mixed_counts ? FullStep(at_percentile) : batch_.StepSeconds(at_percentile);
    if (gap_s > itl_s) return false;
    const PromptQueue queue(workload_, prompts_s, prompts_s);
    return queue.TtftPercentile(rate_per_s, workers_, p) <= ttft_s;
  }

 private:
  double FullStep(double n) const {
    return MixedStepSeconds(deployment_, n, batch_.context_tokens(), chunk_, chunk_context_);
  }
  // Of each prompt, beside n sequences.
  std::vector<double> PromptSeconds(double n) const {
    const double plain_s = batch_.StepSeconds(n), full_s = FullStep(n);
    std::vector<double> seconds;
    seconds.reserve(prompt_tokens_.size());
    for (const double tokens : prompt_tokens_) {
      seconds.push_back(std::ceil(tokens / chunk_) * plain_s +
                        tokens / chunk_ * (full_s - plain_s));
    }
    return seconds;
  }
  // Of one worker that gets `rate` prompts a second and has n sequences in its batch.
  double TokensPerSecond(double rate, double n) const {
    const double busy = rate * ServiceOf(PromptSeconds(n)).mean_s;
    if (busy >= 1) return 0;
    return n * (rate * mean_steps_ + (1 - busy) / batch_.StepSeconds(n));
  }

  const Deployment& deployment_;
  const Workload& workload_;
  const int64_t workers_;
  const double chunk_;
  const DecodeBatch& batch_;
  const double mean_output_tokens_;
  std::vector<double> prompt_tokens_;
  double mean_steps_ = 0, chunk_context_ = 0;
};

}  // namespace

MixedPool BestMixed(const Deployment& deployment, const Workload& workload, int64_t workers,
                    double ttft_s, double itl_s, double p) {
  const DecodeBatch batch(deployment, workload, 0);
  MixedPool best;
  for (const int64_t chunk : {128, 256, 512, 1024, 2048, 4096}) {
    const MixedAtRate mixed(deployment, workload, workers, static_cast<double>(chunk), batch);
    const double rate = LargestRate(static_cast<double>(workers) * batch.Saturation(),
                                    [&](double r) { return mixed.Holds(r, ttft_s, itl_s, p); });
    if (rate > best.max_rate_per_s) best = {.max_rate_per_s = rate, .chunk_tokens = chunk};
  }
  return best;
}

}  // namespace baton::planner
