// `baton plan`: how many prefill workers a decode worker needs, for a model, hardware and traffic.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "cli/command_line.h"
#include "cli/plan_facts.h"
#include "cli/plan_html.h"
#include "cli/plan_output.h"
#include "cli/print_line.h"
#include "cli/trace_file.h"
#include "common/status_macros.h"
#include "planner/explain.h"
#include "planner/plan.h"

namespace baton::cli {
namespace {

constexpr size_t kMostTraceBytes = size_t{1} << 30;

struct PlanFlags {
  std::string model;
  std::string hardware;
  int64_t chips = 0;
  int64_t pipeline = 0;
  std::string weights_dtype, kv_dtype = "bf16", compute_dtype = "bf16";
  planner::Assumptions assumptions;
  double input = 0, output = 0, input_cv = 0, output_cv = 0, prefix_hit = 0;
  double rate = 0, arrival_scv = 1;
  std::string trace;
  double percentile = 0.99, ttft_slo = 0, itl_slo = 0;
  int64_t batch = 0, prefill = 0, decode = 0, fleet_chips = 0;
  double budget = 0, chip_price = 0;
  double prefill_s = 0, decode_step_s = 0;
  std::string html;
  bool book = false, json = false, explain = false;
};

// The fewest chips, a power of two, that hold the model and a sequence.
int64_t FewestChips(const planner::Deployment& one_chip, double context_tokens) {
  const int64_t needed = planner::MinChips(one_chip, 1, context_tokens);
  int64_t chips = 1;
  while (chips < needed && chips < (int64_t{1} << 20)) chips *= 2;
  return chips;
}

// All but the worker's shape, which is one chip.
absl::StatusOr<planner::Deployment> OneChip(const PlanFlags& flags,
                                            const planner::Assumptions& assumptions) {
  planner::Deployment deployment{.assumptions = assumptions};
  BATON_ASSIGN_OR_RETURN(deployment.model, LoadModelFacts(flags.model));
  BATON_ASSIGN_OR_RETURN(deployment.hardware, LoadHardwareFacts(flags.hardware));
  if (flags.weights_dtype.empty()) {
    const double stored = deployment.model.stored_bytes_each;
    deployment.precision.weight_bytes_each = stored > 0 ? stored : 2;
  } else {
    BATON_ASSIGN_OR_RETURN(deployment.precision.weight_bytes_each,
                           BytesOfDtype(flags.weights_dtype));
  }
  BATON_ASSIGN_OR_RETURN(deployment.precision.kv_bytes_each, BytesOfDtype(flags.kv_dtype));
  deployment.precision.compute_8bit = flags.compute_dtype == "fp8" || flags.compute_dtype == "int8";
  return deployment;
}

// What the links do not join is stages of a pipeline; the book's worker is one slice.
absl::StatusOr<planner::WorkerShape> ShapeOf(const planner::Deployment& deployment, int64_t chips,
                                             int64_t pipeline) {
  const int64_t domain = deployment.assumptions.book ? chips : deployment.hardware.domain_chips;
  const int64_t fewest_stages = (chips + domain - 1) / domain;
  const int64_t stages = pipeline > 0 ? pipeline : fewest_stages;
  if (chips % stages != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} chips cannot be {} stages of a pipeline: not a multiple", chips, stages));
  }
  if (chips / stages > domain) {
    return absl::InvalidArgumentError(fmt::format(
        "{} chips of {} cannot share each layer: links join {}; --pipeline {} makes stages",
        chips / stages, deployment.hardware.name, domain, fewest_stages));
  }
  return planner::WorkerShape{.tensor_parallel = chips / stages, .pipeline_parallel = stages};
}

absl::StatusOr<planner::Workload> WorkloadOf(const PlanFlags& flags) {
  if (flags.trace.empty()) {
    return planner::WorkloadOf({.rate_per_s = flags.rate,
                                .arrival_scv = flags.arrival_scv,
                                .input_tokens = flags.input,
                                .input_cv = flags.input_cv,
                                .output_tokens = flags.output,
                                .output_cv = flags.output_cv,
                                .prefix_hit_share = flags.prefix_hit});
  }
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(flags.trace, kMostTraceBytes));
  BATON_ASSIGN_OR_RETURN(const planner::Trace trace, ParseTrace(text));
  BATON_ASSIGN_OR_RETURN(planner::Workload workload, planner::WorkloadOf(trace));
  if (flags.rate > 0) {  // the same requests, faster or slower
    const double slower = workload.arrivals.per_s / flags.rate;
    for (double& at : workload.arrival_s) at *= slower;
    workload.arrivals.per_s = flags.rate;
  }
  return workload;
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot write {}", path));
}

absl::Status RunBook(const PlanFlags& flags) {
  planner::RatioQuestion question{.input_tokens = flags.input,
                                  .output_tokens = flags.output,
                                  .batch = static_cast<double>(flags.batch),
                                  .prefill = flags.prefill,
                                  .decode = flags.decode,
                                  .prefill_s = flags.prefill_s,
                                  .decode_step_s = flags.decode_step_s};
  BATON_ASSIGN_OR_RETURN(question.deployment, OneChip(flags, planner::Assumptions::Book()));
  const int64_t chips =
      flags.chips > 0 ? flags.chips : FewestChips(question.deployment, flags.input);
  BATON_ASSIGN_OR_RETURN(question.deployment.worker,
                         ShapeOf(question.deployment, chips, flags.pipeline));
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
                         ShapeOf(request->deployment, chips, flags.pipeline));
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
  if (flags.chips > 0) return PlanWith(flags, flags.chips, request);
  const int64_t fewest =
      FewestChips(request->deployment, planner::MeanContextTokens(request->workload));
  absl::StatusOr<planner::Plan> best = absl::UnknownError("no size of worker was tried");
  double best_worth = 0;
  planner::WorkerShape best_shape;
  int64_t best_fleet = 0;
  for (int64_t chips = fewest; chips <= 8 * fewest; chips *= 2) {
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
  BATON_ASSIGN_OR_RETURN(request.workload, WorkloadOf(flags));
  BATON_ASSIGN_OR_RETURN(request.deployment, OneChip(flags, flags.assumptions));
  BATON_ASSIGN_OR_RETURN(const planner::Plan plan, BestPlan(flags, &request));
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

// Refuses what is no finite number above 0, at the command line.
std::string CheckPositive(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (!text.empty() && *end == '\0' && std::isfinite(value) && value > 0) return "";
  return fmt::format("'{}' must be a number above 0", text.substr(0, 40));
}

template <typename Load>
auto CheckLoads(Load load) {
  return [load](const std::string& text) -> std::string {
    const auto loaded = load(text);
    return loaded.ok() ? "" : std::string(loaded.status().message());
  };
}

void AddDeploymentFlags(CLI::App* app, PlanFlags* flags) {
  app->add_option("--model", flags->model,
                  "a known model (llama-3-70b), a GGUF file, a config.json or its folder")
      ->required()
      ->check(CheckLoads(LoadModelFacts));
  app->add_option("--hardware", flags->hardware,
                  "known hardware (tpu-v5e, h100), or a YAML or JSON file of its figures")
      ->required()
      ->check(CheckLoads(LoadHardwareFacts));
  app->add_option("--chips", flags->chips, "chips of one worker; 0: the best of several sizes")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app->add_option("--pipeline", flags->pipeline,
                  "of these, stages of a pipeline; the others share each layer; 0: as links allow")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app->add_option("--weights-dtype", flags->weights_dtype,
                  "bf16, fp8, int8, int4, q4_1, ...; default: as stored in a GGUF file, else bf16")
      ->check(CheckLoads(BytesOfDtype));
  app->add_option("--kv-dtype", flags->kv_dtype, "the same of the KV cache")
      ->check(CheckLoads(BytesOfDtype))
      ->capture_default_str();
  app->add_option("--compute-dtype", flags->compute_dtype, "what is multiplied: bf16, fp8, int8")
      ->check(CLI::IsMember({"bf16", "fp16", "fp8", "int8"}))
      ->capture_default_str();
  app->add_option("--mfu", flags->assumptions.prefill_mfu, "share of peak FLOP/s that prefill gets")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  app->add_option("--mbu", flags->assumptions.decode_mbu,
                  "share of the memory's bytes/s that decode gets")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
}

void AddTrafficFlags(CLI::App* app, PlanFlags* flags) {
  app->add_option("--input", flags->input, "tokens of a prompt, on average")->check(CheckPositive);
  app->add_option("--output", flags->output, "tokens of an answer, on average")
      ->check(CheckPositive);
  app->add_option("--input-cv", flags->input_cv, "their coefficient of variation; 0: all alike")
      ->check(CLI::Range(0.0, 10.0));
  app->add_option("--output-cv", flags->output_cv, "the same of answers")
      ->check(CLI::Range(0.0, 10.0));
  app->add_option("--prefix-hit", flags->prefix_hit, "share of a prompt that is cached")
      ->check(CLI::Range(0.0, 0.99));
  app->add_option("--rate", flags->rate,
                  "requests a second; default: the trace's, or what the workers can take")
      ->check(CheckPositive);
  app->add_option("--arrival-scv", flags->arrival_scv,
                  "squared coefficient of variation of the time between arrivals; 1: Poisson")
      ->check(CheckPositive)
      ->capture_default_str();
  app->add_option("--trace", flags->trace, "traffic from an Azure CSV or Mooncake JSONL file")
      ->check(CLI::ExistingFile);
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
  const bool lengths = flags.input > 0 && flags.output > 0;
  const bool traffic = flags.rate > 0 || flags.ttft_slo > 0 || flags.itl_slo > 0 ||
                       flags.fleet_chips > 0 || flags.budget > 0 || !flags.trace.empty();
  if (flags.book && (traffic || !flags.html.empty())) {
    throw CLI::ValidationError(
        "--book is without rates and waiting: no --rate, --trace, --ttft-slo, "
        "--itl-slo, --fleet-chips, --budget or --html beside it");
  }
  if (flags.trace.empty() && !lengths) {
    throw CLI::ValidationError("--input and --output are needed, or a --trace");
  }
  if (!flags.trace.empty() && (flags.input > 0 || flags.output > 0)) {
    throw CLI::ValidationError(
        "--trace has the lengths of prompts and answers: no --input or "
        "--output beside it");
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
  AddDeploymentFlags(app, flags.get());
  AddTrafficFlags(app, flags.get());
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
  app->final_callback([flags] { CheckTogether(*flags); });
  return [flags] { return flags->book ? RunBook(*flags) : RunPlan(*flags); };
}

}  // namespace baton::cli
