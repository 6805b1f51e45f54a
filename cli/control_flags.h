#pragma once

// The router's flags of live control.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/fleet_control.h"
#include "router/kubernetes_executor.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct ControlFlags {
  std::string control = "off";
  double ttft_slo = 0, itl_slo = 0, percentile = 0.99;
  double every_s = 2, cooldown_s = 30, grace_s = 30;
  double gain = 0.15, enough = 1.5;
  int64_t least_requests = 20;
  int32_t lease_s = 10;
  int32_t confirm = 3;
  int64_t least_prefill = 1, least_decode = 2;
  int64_t least_workers = 0, most_workers = 0;
  std::string scale = "none";
  std::string replicas_file;
  router::KubernetesOptions kubernetes;

  bool scales() const { return control == "act" && (least_workers > 0 || most_workers > 0); }
};

void AddControlFlags(CLI::App* app, ControlFlags* flags);
// Of these the ones that say when to decide what, which `baton simulate` has too.
void AddDecisionFlags(CLI::App* app, ControlFlags* flags);
planner::ControlOptions DecisionOptions(const ControlFlags& flags);
// The same flags as arguments for a child process; none when control is off.
std::vector<std::string> ControlArguments(const ControlFlags& flags);
// Null when control is off. With etcd, one that acts begins to ask there who may.
absl::StatusOr<std::shared_ptr<const router::FleetControlOptions>> ControlOptionsOf(
    const ControlFlags& flags, const discovery::EtcdOptions& etcd, const std::string& router_name);

}  // namespace baton::cli
