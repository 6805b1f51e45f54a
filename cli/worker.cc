// `baton worker --role prefill|decode`: one worker, which routers dial.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/etcd_flags.h"
#include "cli/log_flags.h"
#include "cli/router_flags.h"
#include "cli/signals.h"
#include "cli/worker_flags.h"
#include "common/logging.h"
#include "common/loopback.h"
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
  bool insecure_kv = false;
  std::vector<std::string> failpoints;
  int32_t etcd_ttl_s = 10;
};

absl::Status ArmFailpoints(const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    BATON_RETURN_IF_ERROR(ArmFailpoint(setting, kv_transfer::HandoffFailpoints()));
    LogWarning(
        fmt::format("FAILPOINT {} IS ARMED: this process is a test's, it will fail", setting));
  }
  return absl::OkStatus();
}

// Links are encrypted where certificates are given; the KV that moves between workers never is.
absl::Status CheckListen(const WorkerCommandFlags& flags) {
  const TlsFiles& tls = flags.worker.link_tls;
  BATON_RETURN_IF_ERROR(CheckLinkTls(tls));
  BATON_RETURN_IF_ERROR(CheckAddress("--listen", flags.listen, tls.on(), flags.insecure,
                                     "--link-cert, --link-key and --link-ca"));
  const std::string& transport = flags.worker.transport;
  const bool stays = transport == "shm" || transport == "inproc";
  if (IsLoopback(flags.listen) || flags.insecure || flags.insecure_kv || stays) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(fmt::format(
      "--listen {} is not a loopback address, and KV that moves between machines is not encrypted "
      "with --transport {}: give --insecure-kv where the network between the workers is trusted, "
      "or "
      "--transport shm",
      flags.listen, transport));
}

absl::Status CheckRegistration(const WorkerCommandFlags& flags) {
  const discovery::EtcdOptions& etcd = flags.worker.registration.etcd;
  BATON_RETURN_IF_ERROR(CheckEtcdFlags(etcd, flags.insecure));
  if (!etcd.on() && !flags.worker.advertise.empty()) {
    return absl::InvalidArgumentError("--advertise needs --etcd");
  }
  if (!etcd.on()) return absl::OkStatus();
  const std::string host = flags.listen.substr(0, flags.listen.rfind(':'));
  return AdvertisedAddress(flags.worker.advertise, host, /*port=*/1).status();
}

// A fleet's workers need names of their own.
std::string DefaultName(const WorkerCommandFlags& flags) {
  std::array<char, 65> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  const std::string machine(host.data());
  std::string port = flags.listen.substr(flags.listen.rfind(':') + 1);
  if (port == "0") port = std::to_string(getpid());
  return fmt::format("{}-{}-{}", flags.role, machine.substr(0, machine.find('.')), port);
}

absl::Status RunWorker(const WorkerCommandFlags& flags) {
  BlockSignals();
  const std::string name = flags.name.empty() ? DefaultName(flags) : flags.name;
  BATON_RETURN_IF_ERROR(StartLogging(name, flags.log));
  if (flags.role != "prefill" && !flags.worker.kv_disk.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("--kv-disk is of prefill workers, but --role is {}", flags.role));
  }
  BATON_RETURN_IF_ERROR(CheckListen(flags));
  BATON_RETURN_IF_ERROR(CheckRegistration(flags));
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
  app->add_option("--name", flags->name,
                  "this worker's name, of its own in the fleet; ROLE-MACHINE-PORT when not given");
  app->add_option("--listen", flags->listen, "address for routers; port 0: a free one")
      ->capture_default_str();
  app->add_option("--served-model-name", flags->worker.served_model_name,
                  "the model's name for clients; from the file when not given");
  app->add_flag("--insecure", flags->insecure, "allow addresses other than loopback, unencrypted");
  app->add_flag("--insecure-kv", flags->insecure_kv,
                "with --link-cert: KV may move over the network unencrypted");
  AddLinkFlags(app, &flags->worker.link_tls);
  AddEtcdFlags(app, &flags->worker.registration.etcd);
  app->add_option("--etcd-ttl", flags->etcd_ttl_s,
                  "a worker that dies is gone from etcd after so long, seconds")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app->add_option(
      "--advertise", flags->worker.advertise,
      "address to register in etcd, HOST or HOST:PORT; that of --listen when not given");
  // Group "": not in --help.
  app->add_option("--failpoint", flags->failpoints, "NAME=ACTION[:COUNT], for tests")
      ->allow_extra_args(false)
      ->group("");
  AddWorkerFlags(app, &flags->worker);
  AddLogFlags(app, &flags->log);
  return [flags] {
    flags->worker.registration.ttl = std::chrono::seconds(flags->etcd_ttl_s);
    return RunWorker(*flags);
  };
}

}  // namespace baton::cli
