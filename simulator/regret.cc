#include "simulator/regret.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/status_macros.h"
#include "planner/pools.h"

namespace baton::simulator {
namespace {

using planner::Workload;

constexpr int kHalvings = 10;  // of the workload's own rate, and as many doublings
constexpr int kSteps = 7;      // of a bisection over a factor of two: to 0.6%

SimulationOptions OptionsOf(const RegretQuestion& question, int64_t prefill, int64_t decode) {
  return {.prefill = prefill,
          .decode = decode,
          .requests = question.requests,
          .seed = question.seed,
          .ttft_slo_s = question.objectives.ttft_s,
          .itl_slo_s = question.objectives.itl_s};
}

absl::StatusOr<bool> Holds(const SimulatedWorker& worker, const RegretQuestion& question,
                           int64_t prefill, int64_t decode, double faster, int64_t* runs) {
  SimulationOptions options = OptionsOf(question, prefill, decode);
  options.faster = faster;
  BATON_ASSIGN_OR_RETURN(const SimulationResult result,
                         Simulate(worker, question.workload, options));
  ++*runs;
  const double p = question.objectives.percentile;
  return result.ttft_s.Percentile(p) <= question.objectives.ttft_s &&
         (question.objectives.itl_s <= 0 ||
          result.itl_s.Percentile(p) <= question.objectives.itl_s);
}

absl::Status CheckQuestion(const RegretQuestion& question) {
  if (question.workers < 2) {
    return absl::InvalidArgumentError(
        fmt::format("{} workers: at least 2 are needed to be split", question.workers));
  }
  if (!(question.objectives.ttft_s > 0)) {
    return absl::InvalidArgumentError("an objective for the first token is needed");
  }
  return absl::OkStatus();
}

PlayedSplit EqualSplit(int64_t workers) {
  return {.how = "1:1", .prefill = workers / 2, .decode = workers - workers / 2};
}

// By trying all; one that does not carry the best so far is not measured to its end.
absl::StatusOr<PlayedSplit> BestSplit(const SimulatedWorker& worker, const RegretQuestion& question,
                                      int64_t first_prefill, int64_t* runs) {
  PlayedSplit best{.how = "best"};
  std::vector<int64_t> order;
  for (int64_t prefill = 1; prefill < question.workers; ++prefill) order.push_back(prefill);
  // Near the guess first: the sooner a good one is known, the less is played.
  std::ranges::stable_sort(order, {}, [&](int64_t p) { return std::abs(p - first_prefill); });
  for (const int64_t prefill : order) {
    const int64_t decode = question.workers - prefill;
    if (best.goodput_per_s > 0) {
      const double faster = 1.01 * best.goodput_per_s / question.workload.arrivals.per_s;
      BATON_ASSIGN_OR_RETURN(const bool better,
                             Holds(worker, question, prefill, decode, faster, runs));
      if (!better) continue;
    }
    BATON_ASSIGN_OR_RETURN(const double goodput,
                           PlayedGoodput(worker, question, prefill, decode, runs));
    if (goodput <= best.goodput_per_s) continue;
    best.prefill = prefill;
    best.decode = decode;
    best.goodput_per_s = goodput;
  }
  if (best.goodput_per_s > 0) return best;
  return absl::InvalidArgumentError(
      fmt::format("no split of {} workers keeps {:g}% of first tokens within {:g} s and of gaps "
                  "within {:g} s at "
                  "any rate",
                  question.workers, question.objectives.percentile * 100,
                  question.objectives.ttft_s, question.objectives.itl_s));
}

// At this rate, its arrivals from `from_s` on.
void Append(const Workload& part, double rate_per_s, int64_t requests, uint64_t seed, double from_s,
            Workload* out) {
  RequestSource source(part, rate_per_s / part.arrivals.per_s, seed);
  const size_t before = out->requests.size();
  double first_s = 0;
  for (int64_t i = 0; i < requests; ++i) {
    const SimulatedRequest request = source.Take();
    if (i == 0) first_s = request.arrival_s;
    out->requests.push_back({.input_tokens = static_cast<double>(request.input_tokens),
                             .output_tokens = static_cast<double>(request.output_tokens),
                             .cached_share = request.cached_share});
    out->arrival_s.push_back(from_s + request.arrival_s - first_s);
  }
  const double span_s = out->arrival_s.back() - out->arrival_s[before];
  out->arrivals.per_s = static_cast<double>(requests) / std::max(span_s, 1e-9);
  out->arrivals.scv = planner::Dispersion(out->arrival_s);
}

absl::StatusOr<int64_t> Good(const SimulatedWorker& worker, const RegretQuestion& question,
                             const Workload& workload, const PlayedSplit& split) {
  SimulationOptions options = OptionsOf(question, split.prefill, split.decode);
  options.requests = 0;
  BATON_ASSIGN_OR_RETURN(const SimulationResult result, Simulate(worker, workload, options));
  return result.good_requests;
}

}  // namespace

absl::StatusOr<double> PlayedGoodput(const SimulatedWorker& worker, const RegretQuestion& question,
                                     int64_t prefill, int64_t decode, int64_t* runs) {
  const auto holds = [&](double faster) {
    return Holds(worker, question, prefill, decode, faster, runs);
  };
  double low = 1, high = 1;
  BATON_ASSIGN_OR_RETURN(const bool at_own_rate, holds(1));
  if (at_own_rate) {
    for (int i = 0; i < kHalvings; ++i) {
      high = 2 * low;
      BATON_ASSIGN_OR_RETURN(const bool more, holds(high));
      if (!more) break;
      low = high;
    }
  } else {
    bool found = false;
    for (int i = 0; i < kHalvings && !found; ++i) {
      high = low;
      low /= 2;
      BATON_ASSIGN_OR_RETURN(found, holds(low));
    }
    if (!found) return 0.0;
  }
  for (int i = 0; i < kSteps && low < high; ++i) {
    const double middle = std::sqrt(low * high);
    BATON_ASSIGN_OR_RETURN(const bool more, holds(middle));
    (more ? low : high) = middle;
  }
  return low * question.workload.arrivals.per_s;
}

absl::StatusOr<PlayedPlan> PlanByPlaying(const RegretQuestion& question, int64_t* runs) {
  BATON_ASSIGN_OR_RETURN(const SimulatedWorker worker,
                         WorkerOf(question.deployment, question.batch));
  planner::PlanRequest request{.deployment = question.deployment,
                               .workload = question.workload,
                               .objectives = question.objectives,
                               .batch = question.batch,
                               .fleet_workers = question.workers};
  PlayedPlan played;
  BATON_ASSIGN_OR_RETURN(played.plan, planner::MakePlan(request));
  // The same that the plan goes by, where they were not given.
  RegretQuestion play = question;
  play.objectives.ttft_s = played.plan.ttft_slo_s;
  int64_t prefill = played.formula_prefill = played.plan.prefill;
  const auto goodput = [&](int64_t of_prefill) {
    return PlayedGoodput(worker, play, of_prefill, question.workers - of_prefill, runs);
  };
  BATON_ASSIGN_OR_RETURN(played.goodput_per_s, goodput(prefill));
  for (const int64_t step : {-1, 1}) {
    bool moved = false;
    for (int64_t next = prefill + step; next >= 1 && next < question.workers; next += step) {
      BATON_ASSIGN_OR_RETURN(const double carried, goodput(next));
      if (carried <= played.goodput_per_s) break;
      played.goodput_per_s = carried;
      prefill = next;
      moved = true;
    }
    if (moved) break;
  }
  if (prefill == played.formula_prefill) return played;
  request.prefill = prefill;
  request.decode = question.workers - prefill;
  request.fleet_workers = 0;
  BATON_ASSIGN_OR_RETURN(played.plan, planner::MakePlan(request));
  played.plan.findings.push_back(fmt::format(
      "played out, {}:{} carries more than {}:{}, which the formulas would choose", prefill,
      request.decode, played.formula_prefill, question.workers - played.formula_prefill));
  return played;
}

PlayedSplit MeanRateSplit(const SimulatedWorker& worker, const RegretQuestion& question) {
  const Workload& workload = question.workload;
  const double input = workload.MeanInput(), output = workload.MeanOutput();
  double prompt_s = 0;
  for (double at = 0; at < input; at += worker.chunk_tokens) {
    const planner::PromptRange chunk{.tokens = std::min<double>(worker.chunk_tokens, input - at),
                                     .before_tokens = at};
    prompt_s += worker.step_s({.prompts = {&chunk, 1}});
  }
  const double context = input + output / 2;
  const double held = static_cast<double>(worker.kv_blocks) * worker.block_tokens;
  const auto most = static_cast<int64_t>(std::clamp(held / context, 1.0, double{kMostBatch}));
  int64_t batch = 1;
  const auto step_s = [&](int64_t n) {
    const auto count = static_cast<double>(n);
    return worker.step_s({.batch = count, .context_tokens = count * context});
  };
  const double itl_s = question.objectives.itl_s;
  while (batch < std::min<int64_t>(most, worker.max_batch) &&
         (itl_s <= 0 || step_s(batch + 1) <= itl_s)) {
    ++batch;
  }
  const double answer_s = output * step_s(batch) / static_cast<double>(batch);
  const auto workers = static_cast<double>(question.workers);
  const int64_t prefill = std::clamp<int64_t>(
      std::llround(workers * prompt_s / (prompt_s + answer_s)), 1, question.workers - 1);
  return {.how = "mean rates", .prefill = prefill, .decode = question.workers - prefill};
}

absl::StatusOr<RegretReport> StaticRegret(const RegretQuestion& question) {
  BATON_RETURN_IF_ERROR(CheckQuestion(question));
  BATON_ASSIGN_OR_RETURN(const SimulatedWorker worker,
                         WorkerOf(question.deployment, question.batch));
  RegretReport report;
  BATON_ASSIGN_OR_RETURN(const PlayedPlan played, PlanByPlaying(question, &report.runs));
  const planner::Plan& plan = played.plan;
  BATON_ASSIGN_OR_RETURN(PlayedSplit best, BestSplit(worker, question, plan.prefill, &report.runs));
  report.chosen.push_back(best);
  for (PlayedSplit split :
       {PlayedSplit{.how = "plan", .prefill = plan.prefill, .decode = plan.decode},
        PlayedSplit{.how = "formulas",
        .prefill = played.formula_prefill,
        .decode = question.workers - played.formula_prefill},
        EqualSplit(question.workers), MeanRateSplit(worker, question)}) {
    const auto known = std::ranges::find(report.chosen, split.prefill, &PlayedSplit::prefill);
    if (known != report.chosen.end()) {
      split.goodput_per_s = known->goodput_per_s;
    } else {
      BATON_ASSIGN_OR_RETURN(split.goodput_per_s, PlayedGoodput(worker, question, split.prefill,
                                                                split.decode, &report.runs));
    }
    report.chosen.push_back(std::move(split));
  }
  return report;
}

absl::StatusOr<LiveReport> LiveRegret(const LiveQuestion& question) {
  const RegretQuestion& first = question.first;
  BATON_RETURN_IF_ERROR(CheckQuestion(first));
  BATON_ASSIGN_OR_RETURN(const SimulatedWorker worker, WorkerOf(first.deployment, first.batch));
  RegretQuestion second = first;
  second.workload = question.second;
  LiveReport report;
  int64_t runs = 0;
  BATON_ASSIGN_OR_RETURN(report.best_first, BestSplit(worker, first, first.workers / 2, &runs));
  BATON_ASSIGN_OR_RETURN(report.best_second, BestSplit(worker, second, first.workers / 2, &runs));

  const auto requests_of = [&](const Workload& workload) {
    if (first.requests > 0) return first.requests;
    return std::max<int64_t>(2, std::ssize(workload.arrival_s));
  };
  const int64_t first_requests = requests_of(first.workload);
  const int64_t second_requests = requests_of(second.workload);
  Workload halves[2], whole;
  const double first_rate = question.load * report.best_first.goodput_per_s;
  const double second_rate = question.load * report.best_second.goodput_per_s;
  Append(first.workload, first_rate, first_requests, first.seed, 0, &halves[0]);
  Append(second.workload, second_rate, second_requests, first.seed, 0, &halves[1]);
  report.first_s = halves[0].arrival_s.back();
  Append(first.workload, first_rate, first_requests, first.seed, 0, &whole);
  Append(second.workload, second_rate, second_requests, first.seed, report.first_s, &whole);
  report.duration_s = whole.arrival_s.back();
  report.requests = first_requests + second_requests;

  BATON_ASSIGN_OR_RETURN(const int64_t good_first,
                         Good(worker, first, halves[0], report.best_first));
  BATON_ASSIGN_OR_RETURN(const int64_t good_second,
                         Good(worker, first, halves[1], report.best_second));
  report.good_clairvoyant = good_first + good_second;
  BATON_ASSIGN_OR_RETURN(report.good_stays, Good(worker, first, whole, report.best_first));
  BATON_ASSIGN_OR_RETURN(report.good_equal, Good(worker, first, whole, EqualSplit(first.workers)));

  LiveControl control(worker, question.control);
  SimulationOptions options = OptionsOf(first, report.best_first.prefill, report.best_first.decode);
  options.requests = 0;
  options.control = &control;
  BATON_ASSIGN_OR_RETURN(const SimulationResult live, Simulate(worker, whole, options));
  report.good_live = live.good_requests;
  report.moved = live.moved;
  report.changes = control.changes();
  return report;
}

}  // namespace baton::simulator
