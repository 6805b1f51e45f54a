#include "simulator/regret.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/status_macros.h"
#include "planner/pools.h"
#include "simulator/request_source.h"

namespace baton::simulator {
namespace {

using planner::Workload;
using worker_link::Role;

constexpr double kToldEveryS = 0.1;
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

// Fewest workers of each role.
struct Least {
  int64_t prefill = 1, decode = 1;
};

// By trying all; one that does not carry the best so far is not measured to its end.
absl::StatusOr<PlayedSplit> BestSplit(const SimulatedWorker& worker, const RegretQuestion& question,
                                      int64_t first_prefill, const Least& least, int64_t* runs) {
  PlayedSplit best{.how = "best"};
  std::vector<int64_t> order;
  for (int64_t prefill = least.prefill; prefill <= question.workers - least.decode; ++prefill) {
    order.push_back(prefill);
  }
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

// Who is told of the change when it comes, and of the split that is best then, but has to change
// the same workers as anybody: the most that a controller can do.
class ToldControl : public FleetControl {
 public:
  ToldControl(double change_s, int64_t prefill) : change_s_(change_s), prefill_(prefill) {}
  void OnArrival(double, int64_t, int32_t) override {}
  void OnFirstToken(double, int64_t, int32_t) override {}
  void OnEnd(double, int64_t, int32_t) override {}
  void OnProgress(int64_t, int32_t) override {}

  std::vector<RoleChange> Decide(const FleetView& fleet) override {
    if (fleet.now_s < change_s_ || std::exchange(done_, true)) return {};
    std::vector<size_t> by_load(fleet.workers.size());
    std::iota(by_load.begin(), by_load.end(), size_t{0});
    std::ranges::stable_sort(by_load, {}, [&](size_t i) { return fleet.workers[i].requests; });
    int64_t more =
        prefill_ - std::ranges::count(fleet.workers, Role::kPrefill, &FleetView::Worker::role);
    const Role wanted = more > 0 ? Role::kPrefill : Role::kDecode;
    std::vector<RoleChange> changes;
    for (const size_t i : by_load) {
      if (more == 0) break;
      if (fleet.workers[i].role == wanted) continue;
      changes.push_back({i, wanted});
      more += more > 0 ? -1 : 1;
    }
    return changes;
  }

 private:
  const double change_s_;
  const int64_t prefill_;
  bool done_ = false;
};

absl::StatusOr<SimulationResult> PlayControlled(const SimulatedWorker& worker,
                                                const LiveQuestion& question,
                                                const Workload& workload, const PlayedSplit& from,
                                                double every_s, FleetControl* control) {
  const RegretQuestion& first = question.first;
  SimulationOptions options = OptionsOf(first, from.prefill, from.decode);
  options.requests = 0;
  options.control = control;
  options.control_every_s = every_s;
  options.grace_s = question.grace_s;
  return Simulate(worker, workload, options);
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
  BATON_ASSIGN_OR_RETURN(PlayedSplit best,
                         BestSplit(worker, question, plan.prefill, {}, &report.runs));
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
  // Nobody goes below what the controller has to keep.
  const planner::ControlOptions& control_options = question.control;
  const Least least = first.workers > 2
                          ? Least{control_options.least_prefill, control_options.least_decode}
                          : Least{};
  BATON_ASSIGN_OR_RETURN(report.best_first,
                         BestSplit(worker, first, first.workers / 2, least, &runs));
  BATON_ASSIGN_OR_RETURN(report.best_second,
                         BestSplit(worker, second, first.workers / 2, least, &runs));

  const double first_rate = question.load * report.best_first.goodput_per_s;
  const double second_rate = question.load * report.best_second.goodput_per_s;
  const int64_t first_requests = first.requests > 0
                                     ? first.requests
                                     : std::max<int64_t>(2, std::ssize(first.workload.arrival_s));
  // Numbers go on for as long as the first half; a trace is played once.
  const auto as_long = std::llround(static_cast<double>(first_requests) / first_rate * second_rate);
  const int64_t second_requests = std::max<int64_t>(
      2, question.second.arrival_s.empty() ? as_long : std::ssize(question.second.arrival_s));
  Workload halves[2], whole;
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

  ToldControl told(report.first_s, report.best_second.prefill);
  BATON_ASSIGN_OR_RETURN(
      const SimulationResult at_once,
      PlayControlled(worker, question, whole, report.best_first, kToldEveryS, &told));
  report.good_told = at_once.good_requests;
  LiveControl control(worker, question.control);
  BATON_ASSIGN_OR_RETURN(
      const SimulationResult live,
      PlayControlled(worker, question, whole, report.best_first, question.every_s, &control));
  report.good_live = live.good_requests;
  report.moved = live.moved;
  report.changes = control.changes();
  return report;
}

}  // namespace baton::simulator
