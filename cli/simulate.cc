// `baton simulate`: a fleet under a workload, event by event, on the cost model.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <memory>

#include "cli/command_line.h"
#include "cli/plan_flags.h"
#include "cli/print_line.h"
#include "cli/regret_output.h"
#include "common/status_macros.h"
#include "planner/explain.h"
#include "planner/pools.h"
#include "simulator/simulation.h"

namespace baton::cli {
namespace {

namespace json = boost::json;
using planner::SecondsText;

struct SimulateFlags {
  DeploymentFlags deployment;
  TrafficFlags traffic;
  std::string fleet = "1:1";
  simulator::SimulationOptions options;
  int64_t batch = 0;
  double ttft_slo = 0, itl_slo = 0, percentile = 0.99;
  bool regret = false;
  int64_t workers = 8;
  std::string then_trace;
  bool json = false;
};

// "3:1" -> 3 prefill and 1 decode workers.
bool ParseFleet(std::string_view text, int64_t* prefill, int64_t* decode) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  const auto number = [](std::string_view digits, int64_t* out) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *out);
    return error == std::errc() && end == digits.data() + digits.size() && *out >= 0;
  };
  return number(text.substr(0, colon), prefill) && number(text.substr(colon + 1), decode) &&
         *decode >= 1;
}

std::string CheckFleet(const std::string& text) {
  int64_t prefill = 0, decode = 0;
  if (ParseFleet(text, &prefill, &decode)) return "";
  return fmt::format("'{}' must be numbers of prefill and decode workers, as in 3:1",
                     text.substr(0, 40));
}

json::object Percentiles(const simulator::Histogram& seconds) {
  return {{"mean", seconds.mean()},
          {"p50", seconds.Percentile(0.5)},
          {"p90", seconds.Percentile(0.9)},
          {"p99", seconds.Percentile(0.99)}};
}

std::string ResultJson(const SimulateFlags& flags, const simulator::SimulationResult& result) {
  json::object out{{"prefill", flags.options.prefill},
                   {"decode", flags.options.decode},
                   {"seed", flags.options.seed},
                   {"requests", result.requests},
                   {"duration_s", result.duration_s},
                   {"rate_per_s", result.rate_per_s},
                   {"wait_s", Percentiles(result.wait_s)},
                   {"ttft_s", Percentiles(result.ttft_s)},
                   {"itl_s", Percentiles(result.itl_s)},
                   {"prefill_utilisation", result.prefill_utilisation},
                   {"decode_utilisation", result.decode_utilisation},
                   {"batch_mean", result.mean_batch},
                   {"cached_share", result.cached_share},
                   {"preemptions", result.preemptions}};
  if (flags.ttft_slo > 0) out["ttft_within_slo"] = result.ttft_s.ShareWithin(flags.ttft_slo);
  if (flags.itl_slo > 0) out["itl_within_slo"] = result.itl_s.ShareWithin(flags.itl_slo);
  return json::serialize(out);
}

std::string PercentilesText(const char* name, const simulator::Histogram& seconds) {
  return fmt::format("  {:<22} {:>9}  {:>9}  {:>9}\n", name, SecondsText(seconds.Percentile(0.5)),
                     SecondsText(seconds.Percentile(0.9)), SecondsText(seconds.Percentile(0.99)));
}

std::string ResultTable(const SimulateFlags& flags, const simulator::SimulationResult& result) {
  std::string out =
      fmt::format("{} requests in {} on {} prefill and {} decode workers, {:.4g} a second\n\n",
                  result.requests, SecondsText(result.duration_s), flags.options.prefill,
                  flags.options.decode, result.rate_per_s);
  out += fmt::format("  {:<22} {:>9}  {:>9}  {:>9}\n", "", "median", "90%", "99%");
  out += PercentilesText("wait for prefill", result.wait_s);
  out += PercentilesText("time to first token", result.ttft_s);
  out += PercentilesText("time between tokens", result.itl_s);
  out += fmt::format("\n  prefill busy {:.1f}%, decode busy {:.1f}% with {:.1f} sequences a step\n",
                     result.prefill_utilisation * 100, result.decode_utilisation * 100,
                     result.mean_batch);
  if (result.cached_share > 0) {
    out += fmt::format("  of prompts {:.1f}% cached\n", result.cached_share * 100);
  }
  if (result.preemptions > 0) {
    out += fmt::format("  {} sequences gave their memory to older ones\n", result.preemptions);
  }
  if (flags.ttft_slo > 0) {
    out += fmt::format("  first tokens within {}: {:.2f}%\n", SecondsText(flags.ttft_slo),
                       result.ttft_s.ShareWithin(flags.ttft_slo) * 100);
  }
  if (flags.itl_slo > 0) {
    out += fmt::format("  gaps within {}: {:.2f}%\n", SecondsText(flags.itl_slo),
                       result.itl_s.ShareWithin(flags.itl_slo) * 100);
  }
  return out;
}

absl::Status RunRegret(const SimulateFlags& flags, const planner::Deployment& deployment,
                       const planner::Workload& workload) {
  const planner::Objectives objectives{
      .percentile = flags.percentile, .ttft_s = flags.ttft_slo, .itl_s = flags.itl_slo};
  const simulator::RegretQuestion question{.deployment = deployment,
                                           .workload = workload,
                                           .objectives = objectives,
                                           .workers = flags.workers,
                                           .batch = flags.batch,
                                           .requests = flags.options.requests,
                                           .seed = flags.options.seed};
  if (flags.then_trace.empty()) {
    BATON_ASSIGN_OR_RETURN(const simulator::RegretReport report, simulator::StaticRegret(question));
    PrintLine(flags.json ? RegretJson(report, flags.workers) : RegretTable(report, flags.workers));
    return absl::OkStatus();
  }
  simulator::LiveQuestion live{.first = question};
  live.control.objectives = objectives;
  BATON_ASSIGN_OR_RETURN(live.second, LoadWorkload({.trace = flags.then_trace}));
  BATON_ASSIGN_OR_RETURN(const simulator::LiveReport report, simulator::LiveRegret(live));
  PrintLine(flags.json ? LiveJson(report, flags.workers) : LiveTable(report, flags.workers));
  return absl::OkStatus();
}

absl::Status Run(SimulateFlags flags) {
  ParseFleet(flags.fleet, &flags.options.prefill, &flags.options.decode);
  BATON_ASSIGN_OR_RETURN(const planner::Workload workload, LoadWorkload(flags.traffic));
  BATON_ASSIGN_OR_RETURN(planner::Deployment deployment,
                         OneChip(flags.deployment, flags.deployment.assumptions));
  const int64_t chips = flags.deployment.chips > 0
                            ? flags.deployment.chips
                            : FewestChips(deployment, planner::MeanContextTokens(workload));
  BATON_ASSIGN_OR_RETURN(deployment.worker, ShapeOf(deployment, chips, flags.deployment.pipeline));
  if (flags.regret) return RunRegret(flags, deployment, workload);
  BATON_ASSIGN_OR_RETURN(const simulator::SimulatedWorker worker,
                         simulator::WorkerOf(deployment, flags.batch));
  BATON_ASSIGN_OR_RETURN(const simulator::SimulationResult result,
                         simulator::Simulate(worker, workload, flags.options));
  PrintLine(flags.json ? ResultJson(flags, result) : ResultTable(flags, result));
  return absl::OkStatus();
}

}  // namespace

Action AddSimulate(CLI::App* app) {
  auto flags = std::make_shared<SimulateFlags>();
  AddDeploymentFlags(app, &flags->deployment);
  AddTrafficFlags(app, &flags->traffic);
  app->add_option("--fleet", flags->fleet,
                  "prefill and decode workers, as in 3:1, or 0:4 for four that do both")
      ->check(CheckFleet)
      ->capture_default_str();
  app->add_option("--batch", flags->batch,
                  "sequences in a decode worker at most; default: all that fit")
      ->check(CLI::Range(1, 1'000'000));
  app->add_option("--requests", flags->options.requests,
                  "how many; default: the trace once, or 100,000")
      ->check(CLI::Range(2, 100'000'000));
  app->add_option("--seed", flags->options.seed, "of random arrivals and lengths")
      ->capture_default_str();
  app->add_option("--ttft-slo", flags->ttft_slo, "seconds: tells the share of first tokens within")
      ->check(CheckPositive);
  app->add_option("--itl-slo", flags->itl_slo, "seconds: tells the share of gaps within")
      ->check(CheckPositive);
  app->add_option("--percentile", flags->percentile, "of --regret: the share that must be within")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  app->add_flag(
      "--regret", flags->regret,
      "goodput of Baton's plan against the best split, 1:1, and mean rates; needs --ttft-slo");
  app->add_option("--workers", flags->workers, "of --regret: how many there are to be split")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  app->add_option(
      "--then-trace", flags->then_trace,
      "of --regret: the traffic changes to this half way, and the live controller follows");
  app->add_flag("--json", flags->json, "print JSON");
  app->final_callback([flags] {
    CheckTraffic(flags->traffic);
    if (flags->traffic.trace.empty() && flags->traffic.rate <= 0) {
      throw CLI::ValidationError("--rate is needed, or a --trace");
    }
    if (flags->regret && flags->ttft_slo <= 0) {
      throw CLI::ValidationError("--regret needs --ttft-slo");
    }
    if (!flags->then_trace.empty() && !flags->regret) {
      throw CLI::ValidationError("--then-trace goes with --regret");
    }
  });
  return [flags] { return Run(*flags); };
}

}  // namespace baton::cli
