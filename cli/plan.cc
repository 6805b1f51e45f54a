// `baton plan`: how many prefill workers a decode worker needs, for a model, hardware and traffic.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <memory>

#include "cli/command_line.h"
#include "cli/plan_flags.h"
#include "cli/plan_html.h"
#include "cli/plan_output.h"
#include "cli/print_line.h"
#include "common/status_macros.h"
#include "planner/explain.h"
#include "planner/plan.h"
#include "simulator/regret.h"

namespace baton::cli {
namespace {

struct PlanFlags {
  DeploymentFlags deployment;
  TrafficFlags traffic;
  double percentile = 0.99, ttft_slo = 0, itl_slo = 0;
  int64_t batch = 0, prefill = 0, decode = 0, fleet_chips = 0;
  double budget = 0, chip_price = 0;
  double prefill_s = 0, decode_step_s = 0;
  std::string html;
  bool book = false, json = false, explain = false;
};

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot write {}", path));
}

absl::Status RunBook(const PlanFlags& flags) {
  planner::RatioQuestion question{.input_tokens = flags.traffic.input,
                                  .output_tokens = flags.traffic.output,
                                  .batch = static_cast<double>(flags.batch),
                                  .prefill = flags.prefill,
                                  .decode = flags.decode,
                                  .prefill_s = flags.prefill_s,
                                  .decode_step_s = flags.decode_step_s};
  BATON_ASSIGN_OR_RETURN(question.deployment,
                         OneChip(flags.deployment, planner::Assumptions::Book()));
  const int64_t chips = flags.deployment.chips > 0
                            ? flags.deployment.chips
                            : FewestChips(question.deployment, flags.traffic.input);
  BATON_ASSIGN_OR_RETURN(question.deployment.worker,
                         ShapeOf(question.deployment, chips, flags.deployment.pipeline));
  BATON_ASSIGN_OR_RETURN(const planner::RatioAnswer answer, planner::AnswerRatio(question));
  PrintLine(flags.json      ? RatioJson(question, answer)
            : flags.explain ? planner::ExplainRatio(question, answer)
                            : RatioTable(question, answer));
  return absl::OkStatus();
}

// Workers of the fleet that chips or money give; 0 when neither is given.
int64_t FleetWorkers(const PlanFlags& flags, int64_t chips_per_worker) {
  const double chips =
      flags.budget > 0 ? flags.budget / flags.chip_price : static_cast<double>(flags.fleet_chips);
  return static_cast<int64_t>(chips) / chips_per_worker;
}

// The request's plan with workers of this many chips.
absl::StatusOr<planner::Plan> PlanWith(const PlanFlags& flags, int64_t chips,
                                       planner::PlanRequest* request) {
  BATON_ASSIGN_OR_RETURN(request->deployment.worker,
                         ShapeOf(request->deployment, chips, flags.deployment.pipeline));
  if (flags.fleet_chips > 0 || flags.budget > 0) {
    request->fleet_workers = FleetWorkers(flags, chips);
    if (request->fleet_workers < 2) {
      return absl::InvalidArgumentError(
          fmt::format("the fleet holds {} workers of {} chips: prefill and decode need one each",
                      request->fleet_workers, chips));
    }
  }
  return planner::MakePlan(*request);
}

// With --chips as given; else of the fewest chips that hold the model, and twice, four and eight
// times as many, those with the most goodput a chip; of a given rate, with the fewest chips.
absl::StatusOr<planner::Plan> BestPlan(const PlanFlags& flags, planner::PlanRequest* request) {
  if (flags.deployment.chips > 0) return PlanWith(flags, flags.deployment.chips, request);
  const int64_t fewest =
      FewestChips(request->deployment, planner::MeanContextTokens(request->workload));
  absl::StatusOr<planner::Plan> best = absl::UnknownError("no size of worker was tried");
  double best_worth = 0;
  planner::WorkerShape best_shape;
  int64_t best_fleet = 0;
  const bool fleet = flags.fleet_chips > 0 || flags.budget > 0;
  for (int64_t chips = fewest; chips <= 8 * fewest; chips *= 2) {
    if (fleet && chips > fewest && FleetWorkers(flags, chips) < 2) break;
    absl::StatusOr<planner::Plan> plan = PlanWith(flags, chips, request);
    if (!plan.ok()) {
      if (!best.ok()) best = std::move(plan);  // the largest workers say why not even they do
      continue;
    }
    const double all_chips = static_cast<double>((plan->prefill + plan->decode) * chips);
    const bool fixed_rate = request->workload.arrivals.per_s > 0 && request->fleet_workers == 0;
    const double worth = (fixed_rate ? 1 : plan->goodput_per_s) / all_chips;
    if (best.ok() && worth <= best_worth) continue;
    best = std::move(plan);
    best_worth = worth;
    best_shape = request->deployment.worker;
    best_fleet = request->fleet_workers;
  }
  request->deployment.worker = best_shape;
  request->fleet_workers = best_fleet;
  return best;
}

absl::Status RunPlan(const PlanFlags& flags) {
  planner::PlanRequest request{.objectives = {.percentile = flags.percentile,
                                              .ttft_s = flags.ttft_slo,
                                              .itl_s = flags.itl_slo},
                               .batch = flags.batch,
                               .prefill = flags.prefill,
                               .decode = flags.decode};
  BATON_ASSIGN_OR_RETURN(request.workload, LoadWorkload(flags.traffic));
  BATON_ASSIGN_OR_RETURN(request.deployment,
                         OneChip(flags.deployment, flags.deployment.assumptions));
  BATON_ASSIGN_OR_RETURN(planner::Plan plan, BestPlan(flags, &request));
  if (request.fleet_workers >= 2 && !request.workload.arrival_s.empty()) {
    int64_t runs = 0;
    BATON_ASSIGN_OR_RETURN(simulator::PlayedPlan played,
                           simulator::PlanByPlaying({.deployment = request.deployment,
                                                     .workload = request.workload,
                                                     .objectives = request.objectives,
                                                     .workers = request.fleet_workers,
                                                     .batch = request.batch},
                                                    &runs));
    plan = std::move(played.plan);
  }
  const planner::RatioQuestion question{.deployment = request.deployment,
                                        .input_tokens = request.workload.MeanInput(),
                                        .output_tokens = request.workload.MeanOutput(),
                                        .batch = plan.ratio.batch,
                                        .prefill = plan.prefill,
                                        .decode = plan.decode};
  if (!flags.html.empty()) {
    BATON_RETURN_IF_ERROR(WriteTextFile(
        flags.html, PlanHtml(request, plan, PlanTable(request, plan, flags.chip_price),
                             planner::ExplainRatio(question, plan.ratio))));
  }
  if (flags.json) {
    PrintLine(PlanJson(request, plan, flags.chip_price));
    return absl::OkStatus();
  }
  if (flags.explain) PrintLine(planner::ExplainRatio(question, plan.ratio));
  PrintLine(PlanTable(request, plan, flags.chip_price));
  return absl::OkStatus();
}

void AddObjectiveFlags(CLI::App* app, PlanFlags* flags) {
  app->add_option("--percentile", flags->percentile, "of requests that meet the objectives")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  app->add_option("--ttft-slo", flags->ttft_slo,
                  "seconds to the first token; default: twice a prompt's prefill alone")
      ->check(CheckPositive);
  app->add_option("--itl-slo", flags->itl_slo, "seconds between tokens; default: any")
      ->check(CheckPositive);
}

void AddFleetFlags(CLI::App* app, PlanFlags* flags) {
  app->add_option("--batch", flags->batch,
                  "sequences in a decode worker at most; default: all that fit")
      ->check(CLI::Range(1, 1'000'000));
  app->add_option("--prefill", flags->prefill, "prefill workers; default: the fewest that do")
      ->check(CLI::Range(1, 4096));
  app->add_option("--decode", flags->decode, "decode workers; default: the fewest that do")
      ->check(CLI::Range(1, 4096));
  CLI::Option* fleet =
      app->add_option("--fleet-chips", flags->fleet_chips, "chips of the whole fleet, to be split")
          ->check(CLI::Range(1, 1 << 24));
  CLI::Option* price = app->add_option("--chip-price", flags->chip_price, "USD a chip and hour")
                           ->check(CheckPositive);
  app->add_option("--budget", flags->budget, "USD an hour, instead of --fleet-chips")
      ->check(CheckPositive)
      ->needs(price)
      ->excludes(fleet);
}

// What single flags cannot tell. Throws, which is bad usage.
void CheckTogether(const PlanFlags& flags) {
  const bool traffic = flags.traffic.rate > 0 || flags.ttft_slo > 0 || flags.itl_slo > 0 ||
                       flags.fleet_chips > 0 || flags.budget > 0 || !flags.traffic.trace.empty();
  if (flags.book && (traffic || !flags.html.empty())) {
    throw CLI::ValidationError(
        "--book is without rates and waiting: no --rate, --trace, --ttft-slo, "
        "--itl-slo, --fleet-chips, --budget or --html beside it");
  }
  if (!flags.book && (flags.prefill_s > 0 || flags.decode_step_s > 0)) {
    throw CLI::ValidationError(
        "--prefill-s and --decode-step-s go with --book; else --mfu and "
        "--mbu say what was measured");
  }
}

}  // namespace

Action AddPlan(CLI::App* app) {
  auto flags = std::make_shared<PlanFlags>();
  AddDeploymentFlags(app, &flags->deployment);
  AddTrafficFlags(app, &flags->traffic);
  AddObjectiveFlags(app, flags.get());
  AddFleetFlags(app, flags.get());
  app->add_flag(
      "--book", flags->book,
      "the simplifications of \"How to Scale Your Model\": parameter FLOPs at 40% of peak, "
      "no overheads, no waiting");
  app->add_option("--prefill-s", flags->prefill_s, "with --book: seconds of a prefill, measured")
      ->check(CheckPositive);
  app->add_option("--decode-step-s", flags->decode_step_s,
                  "with --book: seconds of a decode step, measured")
      ->check(CheckPositive);
  app->add_option("--html", flags->html, "also write the plan to this file, with plots");
  app->add_flag("--json", flags->json, "print JSON");
  app->add_flag("--explain", flags->explain, "print the derivation, step by step");
  app->final_callback([flags] {
    CheckTraffic(flags->traffic);
    CheckTogether(*flags);
  });
  return [flags] { return flags->book ? RunBook(*flags) : RunPlan(*flags); };
}

}  // namespace baton::cli
