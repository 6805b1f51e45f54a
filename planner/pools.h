#pragma once

// A pool of equal workers under a load: how long requests wait and how far it can go. The cost
// model gives the times of one request or step, queueing.h what waiting adds. Pure; each object is
// made for one deployment and workload and keeps neither.

#include <cstdint>
#include <vector>

#include "planner/cost_model.h"
#include "planner/queueing.h"
#include "planner/workload.h"

namespace baton::planner {

// Prompts on `workers` that take them one at a time, each prompt going to the worker with the least
// work (the router's placement).
class PromptQueue {
 public:
  // Of each request the seconds that a worker is busy with it, and those until its first token if
  // it need not wait.
  PromptQueue(const Workload& workload, std::vector<double> busy_s, std::vector<double> alone_s);

  double Utilisation(double rate_per_s, int64_t workers) const;
  // Percentile of the time to the first token. Of a trace by replaying its own arrivals, faster or
  // slower so as to give the rate; else by queueing.h. Infinite when the workers do not keep up.
  double TtftPercentile(double rate_per_s, int64_t workers, double p) const;
  // The same without any waiting.
  double AlonePercentile(double p) const;
  // The largest rate with that percentile within `ttft_s`; 0 when it is not even alone.
  double MaxRate(int64_t workers, double ttft_s, double p) const;

 private:
  double Replayed(double rate_per_s, int64_t workers, double p) const;

  Arrivals arrivals_;
  std::vector<double> arrival_s_;
  std::vector<double> busy_s_, alone_s_;
  ServiceTimes service_;
};

// Of `workers` prefill workers together; more of them cache more.
PromptQueue PrefillQueue(const Deployment& deployment, const Workload& workload, int64_t workers);

// A worker as it was measured: what its steps take, and what it holds.
struct MeasuredWorker {
  StepCost step_s;
  double kv_tokens = 0;
  int64_t chunk_tokens = 256;
  int64_t max_batch = 64;
};
// Of such prefill workers. Hits are the workload's own.
PromptQueue PrefillQueue(const MeasuredWorker& worker, const Workload& workload);

// Tokens of KV of a sequence in a batch: of longer answers there are more at any time, so it is
// E[output * (input + output / 2)] / E[output].
double MeanContextTokens(const Workload& workload);

// One decode worker of several among whom requests are shared out.
class DecodeBatch {
 public:
  // `limit`: sequences at most; 0: as many as fit, with room for their lengths' spread.
  DecodeBatch(const Deployment& deployment, const Workload& workload, int64_t limit);
  DecodeBatch(const MeasuredWorker& worker, const Workload& workload);

  int64_t limit() const { return static_cast<int64_t>(step_s_.size()) - 1; }
  double context_tokens() const { return context_tokens_; }
  double StepSeconds(double batch) const;
  // Requests a second that a full batch finishes.
  double Saturation() const;

  // `rate_per_s` is that of all `workers` together.
  BatchDistribution At(double rate_per_s, int64_t workers) const;
  double ItlPercentile(double rate_per_s, int64_t workers, double p) const;
  // The largest rate of all workers with at most 1 - p of the sequences waiting for a place and the
  // time between tokens within `itl_s` at that percentile; with an infinite `itl_s` that a full
  // batch finishes.
  double MaxRate(int64_t workers, double itl_s, double p) const;

 private:
  void FillSteps(const StepCost& step_s, double spread_tokens, int64_t limit);

  Arrivals arrivals_;
  double context_tokens_ = 0;
  double mean_output_tokens_ = 0;
  GapShape gaps_;
  std::vector<double> step_s_;
};

// Workers that do both, prompts in chunks beside the batch (Sarathi), for comparison.
struct MixedPool {
  double max_rate_per_s = 0;
  int64_t chunk_tokens = 0;  // the one that gives it
};
// The largest rate of `workers` within both limits at percentile p, over chunks of 128 to 4096.
MixedPool BestMixed(const Deployment& deployment, const Workload& workload, int64_t workers,
                    double ttft_s, double itl_s, double p);

}  // namespace baton::planner
