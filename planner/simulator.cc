#include "planner/simulator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <queue>
#include <random>
#include <set>
#include <tuple>

#include "common/status_macros.h"
#include "planner/numbers.h"
#include "planner/ratio.h"

namespace baton::planner {
namespace {

constexpr double kSmallest = 1e-9;  // bins begin here
const double kLogBin = std::log(1.01);
constexpr int64_t kMostRequests = 100'000'000;
constexpr int64_t kMostSimulatedWorkers = 100'000;
constexpr int64_t kDefaultRequests = 100'000;

size_t BinOf(double value) {
  return value <= kSmallest ? 0 : 1 + static_cast<size_t>(std::log(value / kSmallest) / kLogBin);
}

// Requests one after the other: a trace's own, again from its start when more are asked for, or
// random draws of lengths with times between them that have the workload's mean and variation.
class Source {
 public:
  Source(const Workload& workload, uint64_t seed)
      : workload_(workload), random_(seed), replay_(!workload.arrival_s.empty()) {}

  struct Next {
    double at_s = 0;
    RequestLength length;
  };
  Next Take() {
    const size_t size = workload_.requests.size();
    if (!replay_) {
      now_s_ += BetweenSeconds();
      return {now_s_,
              workload_.requests[static_cast<size_t>(Uniform() * D(static_cast<int64_t>(size)))]};
    }
    const size_t index = taken_ % size;
    const double span_s = workload_.arrival_s.back() - workload_.arrival_s.front();
    const double round_s = span_s + 1 / workload_.arrivals.per_s;
    const double at_s = D(static_cast<int64_t>(taken_ / size)) * round_s +
                        workload_.arrival_s[index] - workload_.arrival_s.front();
    ++taken_;
    return {at_s, workload_.requests[index]};
  }

 private:
  // In [0, 1), with the same bits on every machine.
  double Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  double BetweenSeconds() {
    const double mean_s = 1 / workload_.arrivals.per_s;
    const double scv = workload_.arrivals.scv;
    const double exponential = -std::log1p(-Uniform());
    if (scv <= 1) return mean_s * (1 - std::sqrt(scv) + std::sqrt(scv) * exponential);
    // Two exponentials with balanced means.
    const double p = (1 + std::sqrt((scv - 1) / (scv + 1))) / 2;
    const double branch = Uniform() < p ? p : 1 - p;
    return mean_s * exponential / (2 * branch);
  }

  const Workload& workload_;
  std::mt19937_64 random_;
  const bool replay_;
  size_t taken_ = 0;
  double now_s_ = 0;
};

struct Sequence {
  double input_tokens = 0;
  double output_tokens = 0;
  double first_token_s = 0;
};

struct DecodeWorker {
  std::deque<Sequence> waiting;
  // Steps at which sequences end, and the KV tokens that each then frees.
  std::priority_queue<std::pair<int64_t, double>, std::vector<std::pair<int64_t, double>>,
                      std::greater<>>
      ending;
  std::vector<double> joined_first_token_s;  // of those whose first step this is
  int64_t steps = 0;
  double kv_tokens = 0;        // of sequences in the batch, now
  double reserved_tokens = 0;  // the same at their ends
  bool stepping = false;
  double step_s = 0;
};

enum class Kind { kArrival, kPrefilled, kStepEnd };

struct Event {
  double at_s = 0;
  int64_t order = 0;  // events of one moment in the order in which they were made
  Kind kind = Kind::kArrival;
  int64_t worker = 0;  // decode
  Sequence sequence;
  bool operator>(const Event& other) const {
    return std::tie(at_s, order) > std::tie(other.at_s, other.order);
  }
};

class Simulation {
 public:
  Simulation(const Deployment& deployment, const Workload& workload,
             const SimulationOptions& options, int64_t requests)
      : d_(deployment),
        source_(workload, options.seed),
        left_(requests),
        decode_(static_cast<size_t>(options.decode)),
        batch_limit_(options.batch > 0 ? options.batch : std::numeric_limits<int64_t>::max()),
        kv_capacity_tokens_(KvCapacityBytes(deployment) /
                            KvBytesPerToken(deployment.model, deployment.precision)) {
    hits_kept_ = workload.HitsKept(D(options.prefill) * kv_capacity_tokens_);
    for (int64_t i = 0; i < options.prefill; ++i) prefill_free_s_.push(0);
    for (int64_t i = 0; i < options.decode; ++i) fewest_.emplace(0, i);
    result_.requests = requests;
  }

  SimulationResult Run() {
    Arrive();
    double now_s = 0;
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_s = event.at_s;
      switch (event.kind) {
        case Kind::kArrival:
          Prefill(event);
          Arrive();
          break;
        case Kind::kPrefilled:
          Prefilled(event);
          break;
        case Kind::kStepEnd:
          EndStep(event.worker, now_s);
          break;
      }
    }
    result_.duration_s = now_s - first_arrival_s_;
    result_.rate_per_s = D(result_.requests - 1) / (last_arrival_s_ - first_arrival_s_);
    const double span_s = std::max(result_.duration_s, 1e-12);
    result_.prefill_utilisation =
        prefill_busy_s_ / (span_s * D(static_cast<int64_t>(prefill_free_s_.size())));
    result_.decode_utilisation =
        decode_busy_s_ / (span_s * D(static_cast<int64_t>(decode_.size())));
    result_.mean_batch = steps_ > 0 ? tokens_ / steps_ : 0;
    return std::move(result_);
  }

 private:
  void Push(double at_s, Kind kind, int64_t worker, const Sequence& sequence) {
    events_.push(
        {.at_s = at_s, .order = order_++, .kind = kind, .worker = worker, .sequence = sequence});
  }

  void Arrive() {
    if (left_ == 0) return;
    --left_;
    const Source::Next next = source_.Take();
    if (order_ == 0) first_arrival_s_ = next.at_s;
    last_arrival_s_ = next.at_s;
    const double cached = std::min(next.length.input_tokens * next.length.cached_share * hits_kept_,
                                   next.length.input_tokens - 1);
    next_cached_tokens_ = cached;
    Push(next.at_s, Kind::kArrival, 0,
         {.input_tokens = next.length.input_tokens,
          .output_tokens = std::max(1.0, std::round(next.length.output_tokens))});
  }

  // Placement of an arrival, and its time on the prefill worker.
  void Prefill(const Event& event) {
    const double computed = event.sequence.input_tokens - next_cached_tokens_;
    const double busy_s = PrefillBusySeconds(d_, computed, next_cached_tokens_);
    const double alone_s = PrefillSeconds(d_, computed, next_cached_tokens_);
    const double start_s = std::max(event.at_s, prefill_free_s_.top());
    prefill_free_s_.pop();
    prefill_free_s_.push(start_s + busy_s);
    prefill_busy_s_ += busy_s;
    const auto [count, worker] = *fewest_.begin();
    fewest_.erase(fewest_.begin());
    fewest_.emplace(count + 1, worker);
    counts_[worker] = count + 1;
    Sequence sequence = event.sequence;
    sequence.first_token_s = start_s + alone_s;
    result_.wait_s.Add(start_s - event.at_s);
    result_.ttft_s.Add(sequence.first_token_s - event.at_s);
    Push(sequence.first_token_s, Kind::kPrefilled, worker, sequence);
  }

  void Prefilled(const Event& event) {
    if (event.sequence.output_tokens <= 1) {
      Leave(event.worker);
      return;
    }
    DecodeWorker& worker = decode_[static_cast<size_t>(event.worker)];
    worker.waiting.push_back(event.sequence);
    if (!worker.stepping) BeginStep(event.worker, event.at_s);
  }

  void Leave(int64_t worker) {
    int64_t& count = counts_[worker];
    fewest_.erase({count, worker});
    fewest_.emplace(--count, worker);
  }

  void BeginStep(int64_t id, double now_s) {
    DecodeWorker& worker = decode_[static_cast<size_t>(id)];
    while (!worker.waiting.empty() && static_cast<int64_t>(worker.ending.size()) < batch_limit_) {
      const Sequence& next = worker.waiting.front();
      const double at_end = next.input_tokens + next.output_tokens;
      const bool alone = worker.ending.empty();
      if (!alone && worker.reserved_tokens + at_end > kv_capacity_tokens_) break;
      worker.reserved_tokens += at_end;
      worker.kv_tokens += next.input_tokens;
      worker.ending.emplace(worker.steps + static_cast<int64_t>(next.output_tokens) - 1, at_end);
      worker.joined_first_token_s.push_back(next.first_token_s);
      worker.waiting.pop_front();
    }
    worker.stepping = !worker.ending.empty();
    if (!worker.stepping) return;
    const double batch = D(static_cast<int64_t>(worker.ending.size()));
    worker.step_s = DecodeStepSeconds(d_, batch, worker.kv_tokens / batch);
    Push(now_s + worker.step_s, Kind::kStepEnd, id, {});
  }

  void EndStep(int64_t id, double now_s) {
    DecodeWorker& worker = decode_[static_cast<size_t>(id)];
    const double batch = D(static_cast<int64_t>(worker.ending.size()));
    const double joined = D(static_cast<int64_t>(worker.joined_first_token_s.size()));
    result_.itl_s.Add(worker.step_s, batch - joined);
    for (const double first_token_s : worker.joined_first_token_s) {
      result_.itl_s.Add(now_s - first_token_s);
    }
    worker.joined_first_token_s.clear();
    decode_busy_s_ += worker.step_s;
    steps_ += 1;
    tokens_ += batch;
    ++worker.steps;
    worker.kv_tokens += batch;
    while (!worker.ending.empty() && worker.ending.top().first <= worker.steps) {
      const double freed = worker.ending.top().second;
      worker.reserved_tokens -= freed;
      worker.kv_tokens -= freed - 1;  // the last token is never written
      worker.ending.pop();
      Leave(id);
    }
    BeginStep(id, now_s);
  }

  const Deployment& d_;
  Source source_;
  int64_t left_;
  int64_t order_ = 0;
  double next_cached_tokens_ = 0;  // of the one arrival that is in events_
  double hits_kept_ = 1;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::priority_queue<double, std::vector<double>, std::greater<>> prefill_free_s_;
  std::vector<DecodeWorker> decode_;
  std::set<std::pair<int64_t, int64_t>> fewest_;  // sequences and decode worker
  std::vector<int64_t> counts_ = std::vector<int64_t>(decode_.size(), 0);
  const int64_t batch_limit_;
  const double kv_capacity_tokens_;
  double first_arrival_s_ = 0, last_arrival_s_ = 0;
  double prefill_busy_s_ = 0, decode_busy_s_ = 0, steps_ = 0, tokens_ = 0;
  SimulationResult result_;
};

}  // namespace

void Histogram::Add(double value, double count) {
  if (count <= 0) return;
  const size_t bin = BinOf(value);
  if (bin >= bins_.size()) bins_.resize(bin + 1, 0);
  bins_[bin] += count;
  count_ += count;
  sum_ += value * count;
}

double Histogram::Percentile(double p) const {
  double sum = 0;
  for (size_t bin = 0; bin < bins_.size(); ++bin) {
    sum += bins_[bin];
    if (sum > 0 && sum >= p * count_) {
      return bin == 0 ? 0 : kSmallest * std::exp(kLogBin * D(static_cast<int64_t>(bin)));
    }
  }
  return 0;
}

double Histogram::ShareWithin(double value) const {
  double sum = 0;
  const size_t last = std::min(BinOf(value) + 1, bins_.size());
  for (size_t bin = 0; bin < last; ++bin) sum += bins_[bin];
  return count_ > 0 ? sum / count_ : 0;
}

absl::StatusOr<SimulationResult> Simulate(const Deployment& deployment, const Workload& workload,
                                          const SimulationOptions& options) {
  if (workload.requests.empty() || workload.arrivals.per_s <= 0) {
    return absl::InvalidArgumentError("the workload has no requests or no rate to simulate");
  }
  for (const int64_t workers : {options.prefill, options.decode}) {
    if (workers >= 1 && workers <= kMostSimulatedWorkers) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} workers: must be 1 to {}", workers, kMostSimulatedWorkers));
  }
  double longest = 0;
  for (const RequestLength& r : workload.requests) {
    longest = std::max(longest, r.input_tokens + r.output_tokens);
  }
  BATON_RETURN_IF_ERROR(CheckFits(deployment, longest));
  const auto own = static_cast<int64_t>(workload.arrival_s.size());
  const int64_t requests =
      options.requests > 0 ? options.requests : (own > 0 ? own : kDefaultRequests);
  if (requests < 2 || requests > kMostRequests) {
    return absl::InvalidArgumentError(
        fmt::format("{} requests: must be 2 to {}", requests, kMostRequests));
  }
  return Simulation(deployment, workload, options, requests).Run();
}

}  // namespace baton::planner
