// `baton simulate`: a fleet under a workload, event by event, on the cost model.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <memory>

#include "cli/command_line.h"
#include "cli/control_flags.h"
#include "cli/measured_worker.h"
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
  std::string measured;  // a file; "": by model and hardware
  std::string fleet = "1:1";
  simulator::SimulationOptions options;
  int64_t batch = 0;
  double percentile = 0.99;
  bool regret = false;
  int64_t workers = 8;
  TrafficFlags then;
  double load = 0.85;
  ControlFlags control;
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
                   {"fetched_share", result.fetched_share},
                   {"preemptions", result.preemptions}};
  if (flags.options.ttft_slo_s > 0)
    out["ttft_within_slo"] = result.ttft_s.ShareWithin(flags.options.ttft_slo_s);
  if (flags.options.itl_slo_s > 0)
    out["itl_within_slo"] = result.itl_s.ShareWithin(flags.options.itl_slo_s);
  out["good_requests"] = result.good_requests;  // within both, gaps on average; all where none is
  out["good_per_s"] = static_cast<double>(result.good_requests) / result.duration_s;
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
    out += fmt::format("  of prompts {:.1f}% cached, {:.1f}% fetched from other prefill workers\n",
                       result.cached_share * 100, result.fetched_share * 100);
  }
  if (result.preemptions > 0) {
    out += fmt::format("  {} sequences gave their memory to older ones\n", result.preemptions);
  }
  if (flags.options.ttft_slo_s > 0) {
    out += fmt::format("  first tokens within {}: {:.2f}%\n", SecondsText(flags.options.ttft_slo_s),
                       result.ttft_s.ShareWithin(flags.options.ttft_slo_s) * 100);
  }
  if (flags.options.itl_slo_s > 0) {
    out += fmt::format("  gaps within {}: {:.2f}%\n", SecondsText(flags.options.itl_slo_s),
                       result.itl_s.ShareWithin(flags.options.itl_slo_s) * 100);
  }
  return out;
}

absl::Status RunRegret(const SimulateFlags& flags, const planner::Deployment& deployment,
                       const planner::Workload& workload) {
  const planner::Objectives objectives{.percentile = flags.percentile,
                                       .ttft_s = flags.options.ttft_slo_s,
                                       .itl_s = flags.options.itl_slo_s};
  const simulator::RegretQuestion question{.deployment = deployment,
                                           .workload = workload,
                                           .objectives = objectives,
                                           .workers = flags.workers,
                                           .batch = flags.batch,
                                           .requests = flags.options.requests,
                                           .seed = flags.options.seed};
  if (flags.then.trace.empty() && flags.then.input <= 0) {
    BATON_ASSIGN_OR_RETURN(const simulator::RegretReport report, simulator::StaticRegret(question));
    PrintLine(flags.json ? RegretJson(report, flags.workers) : RegretTable(report, flags.workers));
    return absl::OkStatus();
  }
  simulator::LiveQuestion live{.first = question,
                               .load = flags.load,
                               .control = DecisionOptions(flags.control),
                               .every_s = flags.control.every_s,
                               .grace_s = flags.control.grace_s};
  live.control.objectives = objectives;
  TrafficFlags then = flags.then;
  if (then.trace.empty()) {
    then.input_cv = flags.traffic.input_cv;
    then.output_cv = flags.traffic.output_cv;
    then.rate = 1;  // any: each half is played at --load of what its best split carries
  }
  BATON_ASSIGN_OR_RETURN(live.second, LoadWorkload(then));
  BATON_ASSIGN_OR_RETURN(const simulator::LiveReport report, simulator::LiveRegret(live));
  PrintLine(flags.json ? LiveJson(report, flags.workers) : LiveTable(report, flags.workers));
  return absl::OkStatus();
}

absl::Status Play(const SimulateFlags& flags, const simulator::SimulatedWorker& worker,
                  const planner::Workload& workload) {
  BATON_ASSIGN_OR_RETURN(const simulator::SimulationResult result,
                         simulator::Simulate(worker, workload, flags.options));
  PrintLine(flags.json ? ResultJson(flags, result) : ResultTable(flags, result));
  return absl::OkStatus();
}

absl::Status Run(SimulateFlags flags) {
  ParseFleet(flags.fleet, &flags.options.prefill, &flags.options.decode);
  BATON_ASSIGN_OR_RETURN(const planner::Workload workload, LoadWorkload(flags.traffic));
  if (!flags.measured.empty()) {
    BATON_ASSIGN_OR_RETURN(const simulator::SimulatedWorker worker,
                           LoadMeasuredWorker(flags.measured));
    return Play(flags, worker, workload);
  }
  BATON_ASSIGN_OR_RETURN(planner::Deployment deployment,
                         OneChip(flags.deployment, flags.deployment.assumptions));
  const int64_t chips = flags.deployment.chips > 0
                            ? flags.deployment.chips
                            : FewestChips(deployment, planner::MeanContextTokens(workload));
  BATON_ASSIGN_OR_RETURN(deployment.worker, ShapeOf(deployment, chips, flags.deployment.pipeline));
  if (flags.regret) return RunRegret(flags, deployment, workload);
  BATON_ASSIGN_OR_RETURN(const simulator::SimulatedWorker worker,
                         simulator::WorkerOf(deployment, flags.batch));
  return Play(flags, worker, workload);
}

void AddThenFlags(CLI::App* app, SimulateFlags* flags) {
  app->add_option(
         "--then-trace", flags->then.trace,
         "of --regret: the traffic changes to this half way, and the live controller follows")
      ->check(CLI::ExistingFile);
  app->add_option("--then-input", flags->then.input,
                  "the same by numbers: tokens of a prompt from half way on, on average")
      ->check(CheckPositive);
  app->add_option("--then-output", flags->then.output, "and of an answer")->check(CheckPositive);
  app->add_option("--load", flags->load,
                  "of --then-trace and --then-input: each half comes at so much of what its best "
                  "split carries")
      ->check(CLI::Range(0.01, 2.0))
      ->capture_default_str();
  AddDecisionFlags(app, &flags->control);
}

void CheckWorkers(const SimulateFlags& flags) {
  const DeploymentFlags& deployment = flags.deployment;
  if (flags.measured.empty()) {
    if (!deployment.model.empty() && !deployment.hardware.empty()) return;
    throw CLI::ValidationError("--model and --hardware are needed, or --measured");
  }
  if (!deployment.model.empty() || !deployment.hardware.empty() || flags.regret) {
    throw CLI::ValidationError(
        "--measured tells what steps take: --model, --hardware and --regret do not go with it");
  }
}

void CheckThen(const SimulateFlags& flags) {
  const TrafficFlags& then = flags.then;
  const bool numbers = then.input > 0 || then.output > 0;
  if (numbers && (then.input <= 0 || then.output <= 0)) {
    throw CLI::ValidationError("--then-input and --then-output go together");
  }
  if (numbers && !then.trace.empty()) {
    throw CLI::ValidationError("--then-trace has lengths: --then-input does not go with it");
  }
  if ((numbers || !then.trace.empty()) && !flags.regret) {
    throw CLI::ValidationError("--then-trace and --then-input go with --regret");
  }
}

}  // namespace

Action AddSimulate(CLI::App* app) {
  auto flags = std::make_shared<SimulateFlags>();
  AddDeploymentFlags(app, &flags->deployment);
  AddTrafficFlags(app, &flags->traffic);
  // Or measured.
  app->get_option("--model")->required(false);
  app->get_option("--hardware")->required(false);
  app->add_option("--measured", flags->measured,
                  "instead of --model and --hardware: workers as a running cluster has measured "
                  "them, a file with what its router says at /admin/plan")
      ->check(CLI::ExistingFile);
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
  app->add_option("--ttft-slo", flags->options.ttft_slo_s,
                  "seconds: tells the share of first tokens within")
      ->check(CheckPositive);
  app->add_option("--itl-slo", flags->options.itl_slo_s, "seconds: tells the share of gaps within")
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
  AddThenFlags(app, flags.get());
  app->add_flag("--json", flags->json, "print JSON");
  app->final_callback([flags] {
    CheckTraffic(flags->traffic);
    CheckWorkers(*flags);
    if (flags->traffic.trace.empty() && flags->traffic.rate <= 0) {
      throw CLI::ValidationError("--rate is needed, or a --trace");
    }
    if (flags->regret && flags->options.ttft_slo_s <= 0) {
      throw CLI::ValidationError("--regret needs --ttft-slo");
    }
    CheckThen(*flags);
  });
  return [flags] { return Run(*flags); };
}

}  // namespace baton::cli
