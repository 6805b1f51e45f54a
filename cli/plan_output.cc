#include "cli/plan_output.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "planner/explain.h"

namespace baton::cli {
namespace {

namespace json = boost::json;
using planner::BytesText;
using planner::SecondsText;

// Whole numbers without a fraction; infinities as null.
json::value Number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

json::object RatioObject(const planner::Deployment& deployment,
                         const planner::RatioAnswer& answer) {
  return {{"model", deployment.model.name},
          {"hardware", deployment.hardware.name},
          {"chips_per_worker", deployment.worker.chips()},
          {"tensor_parallel", deployment.worker.tensor_parallel},
          {"pipeline_parallel", deployment.worker.pipeline_parallel},
          {"kv_bytes_per_token", Number(answer.kv_bytes_per_token)},
          {"weights_bytes", Number(answer.weights_bytes)},
          {"batch_max", answer.batch_max},
          {"batch", Number(answer.batch)},
          {"batch_critical", Number(planner::CriticalBatch(deployment))},
          {"batch_kept", Number(answer.batch_kept)},
          {"context_tokens", Number(answer.context_tokens)},
          {"prefill_s", Number(answer.prefill_s)},
          {"decode_step_s", Number(answer.decode_step_s)},
          {"full_hbm_step_s", Number(answer.full_hbm_step_s)},
          {"ratio_prefill_per_decode", Number(answer.ratio)},
          {"ratio_full_hbm_step", Number(answer.ratio_full_hbm)},
          {"prefill", answer.prefill},
          {"decode", answer.decode},
          {"prefill_utilisation", Number(answer.prefill_utilisation)},
          {"requests_per_s", Number(answer.requests_per_s)}};
}

std::string KeyOf(planner::Resource resource) {
  std::string key = planner::ResourceName(resource);
  for (char& c : key) c = c == ' ' ? '_' : static_cast<char>(std::tolower(c));
  return key;
}

json::object ResourcesObject(const planner::Plan& plan) {
  json::object resources;
  for (int i = 0; i < planner::kResources; ++i) {
    const planner::ResourceUse& use = plan.resources[i];
    resources[KeyOf(static_cast<planner::Resource>(i))] = {
        {"utilisation", Number(use.utilisation)},
        {"max_rate_per_s", Number(use.max_rate_per_s)},
        {"goodput_gained_per_s", Number(use.shadow_price)}};
  }
  return resources;
}

using Rows = std::vector<std::pair<std::string, std::string>>;

std::string Text(const Rows& rows) {
  std::string text;
  for (const auto& [name, value] : rows) {
    fmt::format_to(std::back_inserter(text), "  {:<26} {}\n", name, value);
  }
  return text;
}

std::string WorkerText(const planner::Deployment& d) {
  const int64_t chips = d.worker.chips();
  std::string text = fmt::format("{} on {}, workers of {} chip{}", d.model.name, d.hardware.name,
                                 chips, chips == 1 ? "" : "s");
  if (d.worker.pipeline_parallel > 1) {
    text += fmt::format(" ({} stages of {})", d.worker.pipeline_parallel, d.worker.tensor_parallel);
  }
  return text;
}

double DollarsPerMillionTokens(const planner::Plan& plan, double chip_usd_per_hour) {
  return plan.chip_seconds_per_million_tokens / 3600 * chip_usd_per_hour;
}

std::string MeetsText(double goodput_per_s, double rate_per_s) {
  return fmt::format("{:.4g} requests a second{}", goodput_per_s,
                     goodput_per_s >= rate_per_s ? "" : ", less than the rate");
}

}  // namespace

std::string RatioJson(const planner::RatioQuestion& question, const planner::RatioAnswer& answer) {
  return json::serialize(RatioObject(question.deployment, answer));
}

std::string PlanJson(const planner::PlanRequest& request, const planner::Plan& plan,
                     double chip_usd_per_hour) {
  json::object out = RatioObject(request.deployment, plan.ratio);
  out["rate_per_s"] = Number(plan.rate_per_s);
  out["batch_limit"] = plan.batch_limit;
  out["batch_mean"] = Number(plan.mean_batch);
  // Of requests as they come, not of the mean one.
  out["prefill_utilisation"] = Number(plan.resources[0].utilisation);
  out["ttft_p50_s"] = Number(plan.ttft_p50_s);
  out["ttft_p99_s"] = Number(plan.ttft_p99_s);
  out["itl_p50_s"] = Number(plan.itl_p50_s);
  out["itl_p99_s"] = Number(plan.itl_p99_s);
  out["percentile"] = request.objectives.percentile;
  out["ttft_slo_s"] = Number(plan.ttft_slo_s);
  out["itl_slo_s"] = Number(plan.itl_slo_s);
  out["goodput_per_s"] = Number(plan.goodput_per_s);
  out["binding_resource"] = KeyOf(plan.binding);
  out["resources"] = ResourcesObject(plan);
  out["kv_transfer_bytes_per_s"] = Number(plan.kv_bytes_per_s);
  out["kv_transfer_s"] = Number(plan.transfer_s);
  out["tensor_parallel_max"] = Number(planner::MaxTensorParallel(request.deployment));
  out["local_prefill_tokens"] = Number(plan.local_prefill_tokens);
  out["n_minus_1"] = {{"goodput_less_prefill_per_s", Number(plan.goodput_less_prefill)},
                      {"goodput_less_decode_per_s", Number(plan.goodput_less_decode)}};
  out["mixed"] = {{"goodput_per_s", Number(plan.mixed.max_rate_per_s)},
                  {"chunk_tokens", plan.mixed.chunk_tokens}};
  out["disaggregate"] = plan.disaggregate;
  out["chip_seconds_per_million_tokens"] = Number(plan.chip_seconds_per_million_tokens);
  if (chip_usd_per_hour > 0) {
    out["usd_per_million_tokens"] = Number(DollarsPerMillionTokens(plan, chip_usd_per_hour));
  }
  out["findings"] = json::array(plan.findings.begin(), plan.findings.end());
  return json::serialize(out);
}

std::string RatioTable(const planner::RatioQuestion& question, const planner::RatioAnswer& answer) {
  return fmt::format("{}; {:.0f} tokens in, {:.0f} out\n\n", WorkerText(question.deployment),
                     question.input_tokens, question.output_tokens) +
         Text({{"KV of a token", BytesText(answer.kv_bytes_per_token)},
               {"weights", BytesText(answer.weights_bytes)},
               {"batch", fmt::format("{:.4g} of {}", answer.batch, answer.batch_max)},
               {"prefill of a prompt", SecondsText(answer.prefill_s)},
               {"decode step", SecondsText(answer.decode_step_s)},
               {"prefill per decode worker", fmt::format("{:.2f}", answer.ratio)},
               {"workers", fmt::format("{} prefill, {} decode", answer.prefill, answer.decode)},
               {"prefill busy", fmt::format("{:.1f}%", answer.prefill_utilisation * 100)},
               {"requests a second", fmt::format("{:.4g}", answer.requests_per_s)}});
}

std::string PlanTable(const planner::PlanRequest& request, const planner::Plan& plan,
                      double chip_usd_per_hour) {
  const double percent = request.objectives.percentile * 100;
  std::string out =
      fmt::format("{}; {:.0f} tokens in, {:.0f} out on average\n\n", WorkerText(request.deployment),
                  request.workload.MeanInput(), request.workload.MeanOutput());
  const std::string itl_slo =
      std::isinf(plan.itl_slo_s) ? "any" : "within " + SecondsText(plan.itl_slo_s);
  out += Text(
      {{"workers", fmt::format("{} prefill, {} decode", plan.prefill, plan.decode)},
       {"rate", fmt::format("{:.4g} requests a second{}", plan.rate_per_s,
                            plan.rate_from_batch ? " (what the workers can take)" : "")},
       {"goodput", fmt::format("{:.4g} requests a second with {:.4g}% of first tokens within {}, "
                               "of gaps {}",
                               plan.goodput_per_s, percent, SecondsText(plan.ttft_slo_s), itl_slo)},
       {"time to first token", fmt::format("median {}, 99% {}", SecondsText(plan.ttft_p50_s),
                                           SecondsText(plan.ttft_p99_s))},
       {"time between tokens",
        fmt::format("median {}, 99% {}", SecondsText(plan.itl_p50_s), SecondsText(plan.itl_p99_s))},
       {"batch", fmt::format("{:.1f} on average, at most {}", plan.mean_batch, plan.batch_limit)},
       {"KV moved", fmt::format("{}/s; of a mean prompt in {}", BytesText(plan.kv_bytes_per_s),
                                SecondsText(plan.transfer_s))},
       {"prefill where it decodes",
        fmt::format("prompts of up to {:.0f} tokens not cached", plan.local_prefill_tokens)},
       {"without one prefill worker", MeetsText(plan.goodput_less_prefill, plan.rate_per_s)},
       {"without one decode worker", MeetsText(plan.goodput_less_decode, plan.rate_per_s)},
       {"chip seconds",
        fmt::format(
            "{:.4g} a million tokens{}", plan.chip_seconds_per_million_tokens,
            chip_usd_per_hour > 0
                ? fmt::format(", {:.4g} USD", DollarsPerMillionTokens(plan, chip_usd_per_hour))
                : "")}});
  out += "\n  resource               used   binds at       one more worker's share brings\n";
  for (int i = 0; i < planner::kResources; ++i) {
    const planner::ResourceUse& use = plan.resources[i];
    const auto resource = static_cast<planner::Resource>(i);
    fmt::format_to(std::back_inserter(out), "  {:<21} {:>5.1f}%   {:>9.4g}/s    {:+.4g}/s{}\n",
                   planner::ResourceName(resource), use.utilisation * 100, use.max_rate_per_s,
                   use.shadow_price, resource == plan.binding ? "   <- binds first" : "");
  }
  out += "\n";
  for (const std::string& finding : plan.findings) out += "  * " + finding + "\n";
  return out;
}

}  // namespace baton::cli
