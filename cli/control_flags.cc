#include "cli/control_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "cli/plan_flags.h"
#include "common/status_macros.h"
#include "discovery/leadership.h"
#include "router/replicas_file.h"

namespace baton::cli {
namespace {

void AddScaleFlags(CLI::App* app, ControlFlags* flags) {
  app->add_option("--control-least-workers", flags->least_workers,
                  "live control may stop workers down to so many; 0: it stops none")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  app->add_option("--control-most-workers", flags->most_workers,
                  "live control may start workers up to so many; 0: it starts none")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  app->add_option("--control-scale", flags->scale, "who starts and stops workers")
      ->check(CLI::IsMember({"none", "file", "kubernetes"}))
      ->capture_default_str();
  app->add_option(
      "--control-replicas-file", flags->replicas_file,
      "of --control-scale file: two lines, 'prefill N' and 'decode N', which live control "
      "changes and whoever starts workers reads; 'baton up' needs no such flags");
  app->add_option("--kube-api", flags->kubernetes.api, "the API server")->capture_default_str();
  app->add_option("--kube-namespace", flags->kubernetes.space, "of the workers")
      ->capture_default_str();
  app->add_option("--kube-prefill", flags->kubernetes.prefill,
                  "the prefill workers' workload, statefulsets/NAME or deployments/NAME")
      ->capture_default_str();
  app->add_option("--kube-decode", flags->kubernetes.decode, "the decode workers'")
      ->capture_default_str();
  app->add_option("--kube-token-file", flags->kubernetes.token_file,
                  "bearer token, as in /var/run/secrets/kubernetes.io/serviceaccount/token");
  app->add_option("--kube-ca-file", flags->kubernetes.ca_file, "PEM CA of the API server");
}

// For people who look who leads.
std::string Here(const std::string& router_name) {
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return fmt::format("{}, process {} of {}", router_name, getpid(), host);
}

}  // namespace

void AddDecisionFlags(CLI::App* app, ControlFlags* flags) {
  app->add_option("--control-every", flags->every_s, "seconds from decision to decision")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app->add_option("--control-cooldown", flags->cooldown_s, "seconds after a change")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app->add_option("--control-grace", flags->grace_s,
                  "seconds that streams have to end where a worker changes its role")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app->add_option("--control-gain", flags->gain, "a change brings at least so much more goodput")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  app->add_option("--control-enough", flags->enough,
                  "a ratio that carries so many times what comes is left as it is")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  app->add_option("--control-least-requests", flags->least_requests,
                  "of the last two minutes, that tell the traffic")
      ->check(CLI::Range(2, 512))
      ->capture_default_str();
  app->add_option("--control-confirm", flags->confirm, "decisions in a row that must agree")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--control-least-prefill", flags->least_prefill,
                  "live control leaves so many prefill workers")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app->add_option("--control-least-decode", flags->least_decode,
                  "live control leaves so many decode workers: 2 survive the loss of one")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
}

planner::ControlOptions DecisionOptions(const ControlFlags& flags) {
  return {.objectives = {.percentile = flags.percentile,
                         .ttft_s = flags.ttft_slo,
                         .itl_s = flags.itl_slo},
          .gain = flags.gain,
          .enough = flags.enough,
          .confirm = flags.confirm,
          .cooldown_s = flags.cooldown_s,
          .least_prefill = flags.least_prefill,
          .least_decode = flags.least_decode,
          .most_workers = flags.most_workers,
          .least_workers = flags.least_workers};
}

void AddControlFlags(CLI::App* app, ControlFlags* flags) {
  app->add_option(
         "--control", flags->control,
         "live control of the fleet's ratio: off, advise (say what should change and why, "
         "at /admin/plan and in the log), act; of routers that share --etcd and may act, one "
         "does; without, let one of a fleet")
      ->check(CLI::IsMember({"off", "advise", "act"}))
      ->capture_default_str();
  app->add_option("--ttft-slo", flags->ttft_slo,
                  "of live control: seconds to the first token; default: twice what the prompts "
                  "take alone")
      ->check(CheckPositive);
  app->add_option("--itl-slo", flags->itl_slo,
                  "of live control: seconds between tokens; default: any")
      ->check(CheckPositive);
  app->add_option("--slo-percentile", flags->percentile, "the share that is to be within")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  AddDecisionFlags(app, flags);
  app->add_option("--control-lease", flags->lease_s,
                  "with --etcd: when the router that acts is gone so long, another does; seconds")
      ->check(CLI::Range(2, 3600))
      ->capture_default_str();
  AddScaleFlags(app, flags);
}

std::vector<std::string> ControlArguments(const ControlFlags& flags) {
  if (flags.control == "off") return {};
  std::vector<std::string> arguments = {
      "--control=" + flags.control,
      fmt::format("--slo-percentile={}", flags.percentile),
      fmt::format("--control-every={}", flags.every_s),
      fmt::format("--control-cooldown={}", flags.cooldown_s),
      fmt::format("--control-grace={}", flags.grace_s),
      fmt::format("--control-gain={}", flags.gain),
      fmt::format("--control-enough={}", flags.enough),
      fmt::format("--control-least-requests={}", flags.least_requests),
      fmt::format("--control-confirm={}", flags.confirm),
      fmt::format("--control-least-prefill={}", flags.least_prefill),
      fmt::format("--control-least-decode={}", flags.least_decode),
      fmt::format("--control-least-workers={}", flags.least_workers),
      fmt::format("--control-most-workers={}", flags.most_workers),
      "--control-scale=" + flags.scale};
  if (flags.ttft_slo > 0) arguments.push_back(fmt::format("--ttft-slo={}", flags.ttft_slo));
  if (flags.itl_slo > 0) arguments.push_back(fmt::format("--itl-slo={}", flags.itl_slo));
  if (flags.scale == "file") {
    arguments.push_back("--control-replicas-file=" + flags.replicas_file);
  }
  if (flags.scale != "kubernetes") return arguments;
  const router::KubernetesOptions& kubernetes = flags.kubernetes;
  for (const auto& [flag, value] : {std::pair("--kube-api=", &kubernetes.api),
                                    std::pair("--kube-namespace=", &kubernetes.space),
                                    std::pair("--kube-prefill=", &kubernetes.prefill),
                                    std::pair("--kube-decode=", &kubernetes.decode),
                                    std::pair("--kube-token-file=", &kubernetes.token_file),
                                    std::pair("--kube-ca-file=", &kubernetes.ca_file)}) {
    if (!value->empty()) arguments.push_back(flag + *value);
  }
  return arguments;
}

absl::StatusOr<std::shared_ptr<const router::FleetControlOptions>> ControlOptionsOf(
    const ControlFlags& flags, const discovery::EtcdOptions& etcd, const std::string& router_name) {
  if (flags.control == "off") return nullptr;
  const bool scales = flags.least_workers > 0 || flags.most_workers > 0;
  if (scales && flags.scale == "none") {
    return absl::InvalidArgumentError(
        "--control-least-workers and --control-most-workers need --control-scale: somebody must "
        "start and stop the workers");
  }
  if (flags.most_workers > 0 && flags.least_workers > flags.most_workers) {
    return absl::InvalidArgumentError(
        fmt::format("--control-least-workers {} is more than --control-most-workers {}",
                    flags.least_workers, flags.most_workers));
  }
  auto options = std::make_shared<router::FleetControlOptions>();
  options->mode = flags.control == "act" ? router::ControlMode::kAct : router::ControlMode::kAdvise;
  options->control = DecisionOptions(flags);
  options->every = FromSeconds(flags.every_s);
  options->least_requests = static_cast<size_t>(flags.least_requests);
  options->grace = FromSeconds(flags.grace_s);
  if (flags.scale == "file") {
    BATON_RETURN_IF_ERROR(router::ReadReplicas(flags.replicas_file).status());
    options->executor = router::ReplicasFileExecutor(flags.replicas_file);
  } else if (flags.scale == "kubernetes") {
    BATON_ASSIGN_OR_RETURN(options->executor, router::KubernetesExecutor(flags.kubernetes));
  }
  if (options->mode == router::ControlMode::kAct && etcd.on()) {
    BATON_RETURN_IF_ERROR(discovery::CheckEtcdOptions(etcd));
    options->leadership =
        discovery::Leadership::Start({.etcd = etcd,
                                      .key = "control",
                                      .name = Here(router_name),
                                      .ttl = std::chrono::seconds(flags.lease_s)});
  }
  return std::shared_ptr<const router::FleetControlOptions>(std::move(options));
}

}  // namespace baton::cli
