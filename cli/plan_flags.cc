#include "cli/plan_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>

#include "cli/plan_facts.h"
#include "cli/trace_file.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr size_t kMostTraceBytes = size_t{1} << 30;

template <typename Load>
auto CheckLoads(Load load) {
  return [load](const std::string& text) -> std::string {
    const auto loaded = load(text);
    return loaded.ok() ? "" : std::string(loaded.status().message());
  };
}

}  // namespace

std::string CheckPositive(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (!text.empty() && *end == '\0' && std::isfinite(value) && value > 0) return "";
  return fmt::format("'{}' must be a number above 0", text.substr(0, 40));
}

void AddDeploymentFlags(CLI::App* app, DeploymentFlags* flags) {
  app->add_option("--model", flags->model,
                  "a known model (llama-3-70b), a GGUF file, a config.json or its folder")
      ->required()
      ->check(CheckLoads(LoadModelFacts));
  app->add_option(
         "--hardware", flags->hardware,
         "known hardware (tpu-v5e, h100), a YAML or JSON file of its figures, or this-cpu, "
         "which is measured")
      ->required()
      ->check([](const std::string& name) {
        return name == kThisCpu ? "" : CheckLoads(LoadHardwareFacts)(name);
      });
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

void AddTrafficFlags(CLI::App* app, TrafficFlags* flags) {
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
  app->add_option("--trace", flags->trace,
                  "traffic from an Azure CSV, a Mooncake JSONL or a router's access log")
      ->check(CLI::ExistingFile);
}

void CheckTraffic(const TrafficFlags& flags) {
  if (flags.trace.empty() && (flags.input <= 0 || flags.output <= 0)) {
    throw CLI::ValidationError("--input and --output are needed, or a --trace");
  }
  const bool numbers = flags.input > 0 || flags.output > 0 || flags.input_cv > 0 ||
                       flags.output_cv > 0 || flags.prefix_hit > 0 || flags.arrival_scv != 1;
  if (!flags.trace.empty() && numbers) {
    throw CLI::ValidationError(
        "--trace has lengths, arrivals and prefixes: only --rate goes with it, not --input, "
        "--output, --input-cv, --output-cv, --arrival-scv or --prefix-hit");
  }
}

int64_t FewestChips(const planner::Deployment& one_chip, double context_tokens) {
  const int64_t needed = planner::MinChips(one_chip, 1, context_tokens);
  int64_t chips = 1;
  while (chips < needed && chips < (int64_t{1} << 20)) chips *= 2;
  return chips;
}

absl::StatusOr<planner::Deployment> OneChip(const DeploymentFlags& flags,
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

absl::StatusOr<planner::Workload> LoadWorkload(const TrafficFlags& flags) {
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

}  // namespace baton::cli
