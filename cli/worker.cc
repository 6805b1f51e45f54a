// `baton worker --role prefill|decode`: one worker, which routers dial.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/log_flags.h"
#include "cli/router_flags.h"
#include "cli/signals.h"
#include "cli/worker_flags.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/failpoints.h"

namespace baton::cli {
namespace {

struct WorkerCommandFlags {
  WorkerFlags worker;
  LogFlags log;
  std::string role, name;
  std::string listen = "127.0.0.1:0";
  bool insecure = false;
  std::vector<std::string> failpoints;
};

absl::Status ArmFailpoints(const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    BATON_RETURN_IF_ERROR(ArmFailpoint(setting, kv_transfer::HandoffFailpoints()));
    LogWarning(
        fmt::format("FAILPOINT {} IS ARMED: this process is a test's, it will fail", setting));
  }
  return absl::OkStatus();
}

absl::Status RunWorker(const WorkerCommandFlags& flags) {
  BlockSignals();
  const std::string name = flags.name.empty() ? flags.role : flags.name;
  BATON_RETURN_IF_ERROR(StartLogging(name, flags.log));
  if (flags.role != "prefill" && !flags.worker.kv_disk.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("--kv-disk is of prefill workers, but --role is {}", flags.role));
  }
  BATON_RETURN_IF_ERROR(CheckLoopback(flags.listen, flags.insecure));
  BATON_RETURN_IF_ERROR(ArmFailpoints(flags.failpoints));
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerNode> node,
                         WorkerNode::Start(flags.role, name, flags.listen, flags.worker));
  fmt::print("ready listen={} role={} name={}\n", node->address(), flags.role, name);
  std::fflush(stdout);
  WaitForSignal();
  node->Drain();
  return absl::OkStatus();
}

}  // namespace

Action AddWorker(CLI::App* app) {
  auto flags = std::make_shared<WorkerCommandFlags>();
  app->add_option("--role", flags->role, "prefill or decode")
      ->required()
      ->check(CLI::IsMember({"prefill", "decode"}));
  app->add_option("--name", flags->name, "this worker's name; its role when not given");
  app->add_option("--listen", flags->listen, "address for routers; port 0: a free one")
      ->capture_default_str();
  app->add_option("--served-model-name", flags->worker.served_model_name,
                  "the model's name for clients; from the file when not given");
  app->add_flag("--insecure", flags->insecure, "allow addresses other than loopback, unencrypted");
  // Group "": not in --help.
  app->add_option("--failpoint", flags->failpoints, "NAME=ACTION[:COUNT], for tests")
      ->allow_extra_args(false)
      ->group("");
  AddWorkerFlags(app, &flags->worker);
  AddLogFlags(app, &flags->log);
  return [flags] { return RunWorker(*flags); };
}

}  // namespace baton::cli
