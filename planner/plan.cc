#include "planner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/status_macros.h"
#include "planner/explain.h"
#include "planner/numbers.h"

namespace baton::planner {
namespace {

constexpr int64_t kMostPlannedWorkers = 4096;

// Shares of one more worker, for shadow prices: 1 as planned.
struct Extra {
  double hbm_bytes = 1;
  double hbm_bandwidth = 1;
  double links = 1;
};

// Everything that a request's many questions share.
class Planner {
 public:
  explicit Planner(const PlanRequest& request)
      : r_(request),
        p_(request.objectives.percentile),
        ttft_s_(TtftObjective(request)),
        itl_s_(ItlObjective(request)),
        input_tokens_(request.workload.MeanInput()),
        output_tokens_(request.workload.MeanOutput()),
        kv_bytes_(KvBytes(request.deployment.model, request.deployment.precision, input_tokens_)),
        batch_(Batch({})) {}

  const DecodeBatch& batch() const { return batch_; }
  double ttft_s() const { return ttft_s_; }
  double itl_s() const { return itl_s_; }

  absl::Status CheckObjectives() const;
  absl::StatusOr<Plan> Make() const;

  double PrefillRate(int64_t workers) const {
    return PrefillQueue(r_.deployment, r_.workload, workers).MaxRate(workers, ttft_s_, p_);
  }
  double DecodeRate(int64_t workers, const Extra& extra = {}) const {
    const bool as_planned = extra.hbm_bytes == 1 && extra.hbm_bandwidth == 1;
    return (as_planned ? batch_ : Batch(extra)).MaxRate(workers, itl_s_, p_);
  }
  double LinkRate(int64_t prefill, int64_t decode, const Extra& extra = {}) const {
    const double workers = D(std::min(prefill, decode)) - 1 + extra.links;
    return workers * KvLinkBytesPerSecond(r_.deployment) / kv_bytes_;
  }
  double Goodput(int64_t prefill, int64_t decode, const Extra& extra = {}) const {
    if (prefill < 1 || decode < 1) return 0;
    return std::min(
        {PrefillRate(prefill), DecodeRate(decode, extra), LinkRate(prefill, decode, extra)});
  }

 private:
  DecodeBatch Batch(const Extra& extra) const {
    Deployment more = r_.deployment;
    more.hardware.hbm_bytes *= extra.hbm_bytes;
    more.hardware.hbm_bytes_per_s *= extra.hbm_bandwidth;
    return DecodeBatch(more, r_.workload, r_.batch);
  }

  absl::Status ChooseWorkers(Plan* plan) const;
  absl::Status SplitFleet(Plan* plan) const;
  absl::Status FewestFor(double rate_per_s, Plan* plan) const;
  void Latencies(Plan* plan) const;
  void Resources(Plan* plan) const;
  void Alternatives(Plan* plan) const;
  double LocalPrefillTokens(const Plan& plan) const;
  void Findings(Plan* plan) const;

  const PlanRequest& r_;
  const double p_;
  const double ttft_s_, itl_s_;
  const double input_tokens_, output_tokens_;
  const double kv_bytes_;  // of a mean prompt
  const DecodeBatch batch_;
};

absl::Status Planner::CheckObjectives() const {
  const double alone_s = PrefillQueue(r_.deployment, r_.workload, 1).AlonePercentile(p_);
  if (alone_s > ttft_s_) {
    return absl::InvalidArgumentError(fmt::format(
        "no plan gives a first token within {}: the prefill of the {:.4g}% longest prompts alone "
        "takes {} on {} chips of {}; more chips a worker (--chips) or a later objective would do",
        SecondsText(ttft_s_), (1 - p_) * 100, SecondsText(alone_s), r_.deployment.worker.chips(),
        r_.deployment.hardware.name));
  }
  const double step_s = batch_.StepSeconds(1);
  if (step_s > itl_s_) {
    return absl::InvalidArgumentError(fmt::format(
        "no plan gives {} between tokens: a decode step of a single sequence takes {} on {} chips "
        "of {}",
        SecondsText(itl_s_), SecondsText(step_s), r_.deployment.worker.chips(),
        r_.deployment.hardware.name));
  }
  return absl::OkStatus();
}

absl::Status Planner::SplitFleet(Plan* plan) const {
  if (r_.fleet_workers < 2 || r_.fleet_workers > kMostPlannedWorkers) {
    return absl::InvalidArgumentError(fmt::format(
        "a fleet of {} workers of {} chips cannot be split into prefill and decode: 2 to {} can",
        r_.fleet_workers, r_.deployment.worker.chips(), kMostPlannedWorkers));
  }
  // More prefill workers serve more, more decode workers too: the best split is where they cross.
  double best = -1;
  int64_t low = 1, high = r_.fleet_workers - 1;
  while (low <= high) {
    const int64_t prefill = (low + high) / 2;
    const int64_t decode = r_.fleet_workers - prefill;
    const double by_prefill = PrefillRate(prefill), by_decode = DecodeRate(decode);
    const double goodput = std::min({by_prefill, by_decode, LinkRate(prefill, decode)});
    if (goodput > best) {
      best = goodput;
      plan->prefill = prefill;
      plan->decode = decode;
    }
    if (by_prefill < by_decode) {
      low = prefill + 1;
    } else {
      high = prefill - 1;
    }
  }
  return absl::OkStatus();
}

absl::Status Planner::FewestFor(double rate_per_s, Plan* plan) const {
  const auto fewest = [&](auto max_rate, int64_t from) -> int64_t {
    int64_t low = std::max<int64_t>(1, from), high = low;
    while (high <= kMostPlannedWorkers && max_rate(high) < rate_per_s) {
      low = high + 1;
      high *= 2;
    }
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (max_rate(middle) >= rate_per_s) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return high;
  };
  if (plan->decode == 0) {
    plan->decode = fewest([&](int64_t n) { return DecodeRate(n); },
                          static_cast<int64_t>(rate_per_s / batch_.Saturation()));
  }
  if (plan->prefill == 0) plan->prefill = fewest([&](int64_t n) { return PrefillRate(n); }, 1);
  if (plan->decode > kMostPlannedWorkers || plan->prefill > kMostPlannedWorkers) {
    return absl::InvalidArgumentError(fmt::format(
        "{:.4g} requests a second need more than {} workers of {} chips: a decode worker finishes "
        "{:.4g} a second at most, a prefill worker {:.4g}",
        rate_per_s, kMostPlannedWorkers, r_.deployment.worker.chips(), batch_.Saturation(),
        PrefillRate(1)));
  }
  return absl::OkStatus();
}

absl::Status Planner::ChooseWorkers(Plan* plan) const {
  plan->prefill = r_.prefill;
  plan->decode = r_.decode;
  plan->rate_per_s = r_.workload.arrivals.per_s;
  if (r_.fleet_workers > 0 && (r_.prefill == 0 || r_.decode == 0)) {
    BATON_RETURN_IF_ERROR(SplitFleet(plan));
  }
  if (plan->rate_per_s > 0) return FewestFor(plan->rate_per_s, plan);
  plan->rate_from_batch = true;
  if (r_.fleet_workers > 0) {
    plan->rate_per_s = Goodput(plan->prefill, plan->decode);
    return absl::OkStatus();
  }
  if (plan->decode == 0) plan->decode = 1;
  plan->rate_per_s = D(plan->decode) * batch_.Saturation();
  return FewestFor(plan->rate_per_s, plan);
}

void Planner::Latencies(Plan* plan) const {
  const PromptQueue prompts = PrefillQueue(r_.deployment, r_.workload, plan->prefill);
  const auto ttft = [&](double p) {
    return prompts.TtftPercentile(plan->rate_per_s, plan->prefill, p);
  };
  plan->ttft_p50_s = ttft(0.5);
  plan->ttft_p99_s = ttft(0.99);
  plan->ttft_slo_percentile_s = ttft(p_);
  plan->resources[0].utilisation = prompts.Utilisation(plan->rate_per_s, plan->prefill);
  // Where the rate comes from the batch, every worker keeps its batch full.
  const BatchDistribution batches = batch_.At(plan->rate_per_s, plan->decode);
  plan->mean_batch = batches.mean;
  plan->itl_p50_s = batch_.ItlPercentile(plan->rate_per_s, plan->decode, 0.5);
  plan->itl_p99_s = batch_.ItlPercentile(plan->rate_per_s, plan->decode, 0.99);
}

void Planner::Resources(Plan* plan) const {
  const Deployment& d = r_.deployment;
  const double any_s = std::isinf(itl_s_) ? kInfinity : 1e9;  // steps of any length, but no waiting
  const double bytes_rate = batch_.MaxRate(plan->decode, any_s, p_);
  // Bandwidth alone: a batch four times as large as memory allows, within the objective.
  const DecodeBatch unbounded(d, r_.workload, 4 * batch_.limit());
  const double bandwidth_rate = unbounded.MaxRate(plan->decode, itl_s_, p_);
  ResourceUse* use = plan->resources;
  use[0].max_rate_per_s = PrefillRate(plan->prefill);
  use[1].max_rate_per_s = bytes_rate;
  use[2].max_rate_per_s = bandwidth_rate;
  use[3].max_rate_per_s = LinkRate(plan->prefill, plan->decode);
  plan->goodput_per_s = Goodput(plan->prefill, plan->decode);
  use[1].utilisation = plan->mean_batch / D(batch_.limit());
  use[2].utilisation = plan->rate_per_s / (D(plan->decode) * unbounded.Saturation());
  use[3].utilisation = plan->rate_per_s / use[3].max_rate_per_s;
  const double more = (D(plan->decode) + 1) / D(plan->decode);
  const double goodputs[kResources] = {
      Goodput(plan->prefill + 1, plan->decode),
      Goodput(plan->prefill, plan->decode, {.hbm_bytes = more}),
      Goodput(plan->prefill, plan->decode, {.hbm_bandwidth = more}),
      Goodput(plan->prefill, plan->decode, {.links = 2}),
  };
  int binding = 0;
  for (int i = 0; i < kResources; ++i) {
    use[i].shadow_price = std::max(0.0, goodputs[i] - plan->goodput_per_s);
    const bool more_gain = use[i].shadow_price > use[binding].shadow_price;
    const bool as_much = use[i].shadow_price == use[binding].shadow_price;
    if (more_gain || (as_much && use[i].max_rate_per_s < use[binding].max_rate_per_s)) binding = i;
  }
  plan->binding = static_cast<Resource>(binding);
}

double Planner::LocalPrefillTokens(const Plan& plan) const {
  const double batch = std::max(1.0, plan.mean_batch);
  const double within_s = std::isinf(itl_s_) ? 2 * batch_.StepSeconds(batch) : itl_s_;
  double low = 0, high = D(r_.deployment.assumptions.chunk_tokens);
  for (int i = 0; i < 30; ++i) {
    const double middle = (low + high) / 2;
    const double step_s =
        MixedStepSeconds(r_.deployment, batch, batch_.context_tokens(), middle, 0);
    (step_s <= within_s ? low : high) = middle;
  }
  return std::floor(low);
}

void Planner::Alternatives(Plan* plan) const {
  plan->goodput_less_prefill = Goodput(plan->prefill - 1, plan->decode);
  plan->goodput_less_decode = Goodput(plan->prefill, plan->decode - 1);
  plan->mixed =
      BestMixed(r_.deployment, r_.workload, plan->prefill + plan->decode, ttft_s_, itl_s_, p_);
  plan->disaggregate = plan->goodput_per_s >= plan->mixed.max_rate_per_s;
  plan->local_prefill_tokens = LocalPrefillTokens(*plan);
  plan->kv_bytes_per_s = plan->rate_per_s * kv_bytes_;
  plan->transfer_s = kv_bytes_ / KvLinkBytesPerSecond(r_.deployment);
  const double chips = D((plan->prefill + plan->decode) * r_.deployment.worker.chips());
  plan->chip_seconds_per_million_tokens =
      1e6 * chips / (plan->rate_per_s * (input_tokens_ + output_tokens_));
}

void Planner::Findings(Plan* plan) const {
  auto& say = plan->findings;
  if (plan->resources[0].utilisation >= 1) {
    say.push_back(fmt::format(
        "{} prefill workers do not keep up: they would be {:.1f}% busy, every prompt waits longer "
        "than the one before it, and decode workers never fill their batch",
        plan->prefill, plan->resources[0].utilisation * 100));
  } else if (plan->ttft_slo_percentile_s > ttft_s_) {
    say.push_back(fmt::format(
        "prefill is {:.1f}% busy: at the {:.4g}th percentile a first token takes {}, beyond the "
        "objective of {}",
        plan->resources[0].utilisation * 100, p_ * 100, SecondsText(plan->ttft_slo_percentile_s),
        SecondsText(ttft_s_)));
  }
  if (plan->rate_per_s > plan->goodput_per_s * (1 + 1e-6) && !plan->rate_from_batch) {
    say.push_back(
        fmt::format("{:.4g} requests a second are more than the {:.4g} that meet the "
                    "objectives; {} bind",
                    plan->rate_per_s, plan->goodput_per_s, ResourceName(plan->binding)));
  }
  if (plan->disaggregate) {
    say.push_back(
        fmt::format("disaggregate: {:.4g} requests a second within the objectives, "
                    "against {:.4g} with as many workers that do both",
                    plan->goodput_per_s, plan->mixed.max_rate_per_s));
  } else {
    say.push_back(fmt::format(
        "do not disaggregate: {} workers that do both, in chunks of {} tokens, meet the objectives "
        "at {:.4g} requests a second, {} prefill and {} decode workers at {:.4g}",
        plan->prefill + plan->decode, plan->mixed.chunk_tokens, plan->mixed.max_rate_per_s,
        plan->prefill, plan->decode, plan->goodput_per_s));
  }
}

absl::StatusOr<Plan> Planner::Make() const {
  BATON_RETURN_IF_ERROR(CheckObjectives());
  Plan plan{.ttft_slo_s = ttft_s_, .itl_slo_s = itl_s_};
  plan.batch_limit = batch_.limit();
  BATON_RETURN_IF_ERROR(ChooseWorkers(&plan));
  if (plan.rate_per_s <= 0) {
    return absl::InvalidArgumentError("no rate meets the objectives with these workers");
  }
  Latencies(&plan);
  Resources(&plan);
  Alternatives(&plan);
  RatioQuestion question{.deployment = r_.deployment,
                         .input_tokens = input_tokens_,
                         .output_tokens = output_tokens_,
                         .batch = std::min(D(plan.batch_limit), std::max(1.0, plan.mean_batch)),
                         .prefill = plan.prefill,
                         .decode = plan.decode};
  if (r_.batch == 0) {  // long answers stay longer: fewer fit than of mean requests
    question.batch =
        std::min(question.batch, D(MaxBatch(r_.deployment, input_tokens_ + output_tokens_ / 2)));
  }
  BATON_ASSIGN_OR_RETURN(plan.ratio, AnswerRatio(question));
  Findings(&plan);
  return plan;
}

absl::Status CheckRequest(const PlanRequest& request) {
  const Objectives& o = request.objectives;
  if (!(o.percentile > 0 && o.percentile < 1)) {
    return absl::InvalidArgumentError(
        fmt::format("the percentile is {}, but must be between 0 and 1", o.percentile));
  }
  for (const double seconds : {o.ttft_s, o.itl_s}) {
    if (seconds >= 0 && std::isfinite(seconds)) continue;
    return absl::InvalidArgumentError(
        fmt::format("an objective of {} s: must be positive and finite", seconds));
  }
  if (request.workload.requests.empty()) {
    return absl::InvalidArgumentError("there are no requests to plan for");
  }
  for (const int64_t workers : {request.prefill, request.decode}) {
    if (workers >= 0 && workers <= kMostPlannedWorkers) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} workers: must be 0 to {}", workers, kMostPlannedWorkers));
  }
  const double context = MeanContextTokens(request.workload);
  BATON_RETURN_IF_ERROR(CheckFits(request.deployment, context));
  const int64_t most = MaxBatch(request.deployment, context);
  if (request.batch > most) {
    return absl::InvalidArgumentError(
        fmt::format("a batch of {} does not fit: {} sequences of {:.0f} tokens do", request.batch,
                    most, context));
  }
  return absl::OkStatus();
}

}  // namespace

const char* ResourceName(Resource resource) {
  switch (resource) {
    case Resource::kPrefillFlops:
      return "prefill FLOPs";
    case Resource::kDecodeHbmBytes:
      return "decode HBM bytes";
    case Resource::kDecodeHbmBandwidth:
      return "decode HBM bandwidth";
    case Resource::kLinks:
      return "links";
  }
  return "";
}

double TtftObjective(const PlanRequest& request) {
  if (request.objectives.ttft_s > 0) return request.objectives.ttft_s;
  return 2 * PrefillQueue(request.deployment, request.workload, 1)
                 .AlonePercentile(request.objectives.percentile);
}

double ItlObjective(const PlanRequest& request) {
  return request.objectives.itl_s > 0 ? request.objectives.itl_s : kInfinity;
}

absl::StatusOr<Plan> MakePlan(const PlanRequest& request) {
  BATON_RETURN_IF_ERROR(CheckRequest(request));
  return Planner(request).Make();
}

std::vector<std::vector<double>> GoodputGrid(const PlanRequest& request, int64_t prefill,
                                             int64_t decode) {
  const Planner planner(request);
  std::vector<double> by_prefill, by_decode;
  for (int64_t n = 1; n <= prefill; ++n) by_prefill.push_back(planner.PrefillRate(n));
  for (int64_t n = 1; n <= decode; ++n) by_decode.push_back(planner.DecodeRate(n));
  std::vector<std::vector<double>> grid;
  for (int64_t p = 1; p <= prefill; ++p) {
    grid.emplace_back();
    for (int64_t d = 1; d <= decode; ++d) {
      grid.back().push_back(
          std::min({by_prefill[static_cast<size_t>(p - 1)], by_decode[static_cast<size_t>(d - 1)],
                    planner.LinkRate(p, d)}));
    }
  }
  return grid;
}

}  // namespace baton::planner
