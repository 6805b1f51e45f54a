// `baton plan`: how many prefill workers a decode worker needs, for a model, hardware and traffic.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "cli/command_line.h"
#include "cli/plan_facts.h"
#include "cli/print_line.h"
#include "common/status_macros.h"
#include "planner/explain.h"
#include "planner/ratio.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

struct PlanFlags {
  std::string model;
  std::string hardware;
  int64_t chips = 0;
  int64_t pipeline = 1;
  std::string weights_dtype, kv_dtype = "bf16", compute_dtype = "bf16";
  planner::Assumptions assumptions;
  double input = 0, output = 0, batch = 0;
  int64_t prefill = 0, decode = 0;
  double prefill_s = 0, decode_step_s = 0;
  bool book = false, json = false, explain = false;
};

// The fewest chips, a power of two, that hold the model and a sequence.
int64_t FewestChips(const planner::Deployment& one_chip, double context_tokens) {
  const int64_t needed = planner::MinChips(one_chip, 1, context_tokens);
  int64_t chips = 1;
  while (chips < needed && chips < (int64_t{1} << 20)) chips *= 2;
  return chips;
}

absl::StatusOr<planner::Deployment> DeploymentOf(const PlanFlags& flags) {
  planner::Deployment deployment;
  deployment.assumptions = flags.book ? planner::Assumptions::Book() : flags.assumptions;
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
  const int64_t chips =
      flags.chips > 0
          ? flags.chips
          : FewestChips(deployment, planner::ContextTokens(deployment, flags.input, flags.output));
  if (chips % flags.pipeline != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "{} chips cannot be {} stages of a pipeline: not a multiple", chips, flags.pipeline));
  }
  deployment.worker = {.tensor_parallel = chips / flags.pipeline,
                       .pipeline_parallel = flags.pipeline};
  return deployment;
}

json::value Number(double value) { return std::isfinite(value) ? json::value(value) : nullptr; }

json::object RatioJson(const planner::RatioQuestion& question, const planner::RatioAnswer& answer) {
  const planner::Deployment& deployment = question.deployment;
  return {{"model", deployment.model.name},
          {"hardware", deployment.hardware.name},
          {"chips_per_worker", deployment.worker.chips()},
          {"kv_bytes_per_token", Number(answer.kv_bytes_per_token)},
          {"weights_bytes", Number(answer.weights_bytes)},
          {"batch_max", answer.batch_max},
          {"batch", Number(answer.batch)},
          {"batch_critical", Number(planner::CriticalBatch(deployment))},
          {"context_tokens", Number(answer.context_tokens)},
          {"prefill_s", Number(answer.prefill_s)},
          {"decode_step_s", Number(answer.decode_step_s)},
          {"full_hbm_step_s", Number(answer.full_hbm_step_s)},
          {"ratio_prefill_per_decode", Number(answer.ratio)},
          {"ratio_full_hbm_step", Number(answer.ratio_full_hbm)},
          {"prefill", answer.prefill},
          {"decode", answer.decode},
          {"prefill_utilisation", Number(answer.prefill_utilisation)},
          {"batch_kept", Number(answer.batch_kept)},
          {"requests_per_s", Number(answer.requests_per_s)}};
}

void PrintRatioTable(const planner::RatioQuestion& question, const planner::RatioAnswer& answer) {
  const planner::Deployment& d = question.deployment;
  using planner::BytesText;
  using planner::SecondsText;
  fmt::print("{} on {}, workers of {} chips, {:.0f} tokens in, {:.0f} out\n\n", d.model.name,
             d.hardware.name, d.worker.chips(), question.input_tokens, question.output_tokens);
  const std::pair<const char*, std::string> rows[] = {
      {"KV of a token", BytesText(answer.kv_bytes_per_token)},
      {"weights", BytesText(answer.weights_bytes)},
      {"largest batch", fmt::format("{}", answer.batch_max)},
      {"batch", fmt::format("{:.4g}", answer.batch)},
      {"prefill of a prompt", SecondsText(answer.prefill_s)},
      {"decode step", SecondsText(answer.decode_step_s)},
      {"prefill per decode worker", fmt::format("{:.2f}", answer.ratio)},
      {"workers", fmt::format("{} prefill, {} decode", answer.prefill, answer.decode)},
      {"prefill busy", fmt::format("{:.1f}%", answer.prefill_utilisation * 100)},
      {"requests a second", fmt::format("{:.4g}", answer.requests_per_s)}};
  for (const auto& [name, value] : rows) fmt::print("  {:<26} {}\n", name, value);
}

absl::Status Run(const PlanFlags& flags) {
  planner::RatioQuestion question{.input_tokens = flags.input,
                                  .output_tokens = flags.output,
                                  .batch = flags.batch,
                                  .prefill = flags.prefill,
                                  .decode = flags.decode,
                                  .prefill_s = flags.prefill_s,
                                  .decode_step_s = flags.decode_step_s};
  BATON_ASSIGN_OR_RETURN(question.deployment, DeploymentOf(flags));
  BATON_ASSIGN_OR_RETURN(const planner::RatioAnswer answer, planner::AnswerRatio(question));
  if (flags.json) {
    PrintLine(json::serialize(RatioJson(question, answer)));
  } else if (flags.explain) {
    PrintLine(planner::ExplainRatio(question, answer));
  } else {
    PrintRatioTable(question, answer);
  }
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
  app->add_option("--chips", flags->chips, "chips of one worker; 0: the fewest that hold the model")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app->add_option("--pipeline", flags->pipeline,
                  "of these, stages of a pipeline; the others share each layer")
      ->check(CLI::Range(1, 1024))
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

}  // namespace

Action AddPlan(CLI::App* app) {
  auto flags = std::make_shared<PlanFlags>();
  AddDeploymentFlags(app, flags.get());
  app->add_option("--input", flags->input, "tokens of a prompt")->check(CheckPositive)->required();
  app->add_option("--output", flags->output, "tokens of an answer")
      ->check(CheckPositive)
      ->required();
  app->add_option("--batch", flags->batch,
                  "sequences that a decode worker keeps; default: all that fit")
      ->check(CheckPositive);
  app->add_option("--prefill", flags->prefill, "prefill workers; default: the fewest that do")
      ->check(CLI::Range(1, 1'000'000));
  app->add_option("--decode", flags->decode, "decode workers")->check(CLI::Range(1, 1'000'000));
  app->add_option("--prefill-s", flags->prefill_s, "seconds of a prompt's prefill, measured")
      ->check(CheckPositive);
  app->add_option("--decode-step-s", flags->decode_step_s, "seconds of a decode step, measured")
      ->check(CheckPositive);
  app->add_flag(
      "--book", flags->book,
      "the simplifications of \"How to Scale Your Model\": parameter FLOPs at 40% of peak, "
      "no overheads, no waiting");
  app->add_flag("--json", flags->json, "print JSON");
  app->add_flag("--explain", flags->explain, "print the derivation, step by step");
  return [flags] { return Run(*flags); };
}

}  // namespace baton::cli
