// `baton router`: the front ends and the dispatcher, for workers that run elsewhere.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cli/command_line.h"
#include "cli/etcd_flags.h"
#include "cli/log_flags.h"
#include "cli/router_flags.h"
#include "cli/signals.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

struct RouterCommandFlags {
  RouterFlags router;
  router::DispatcherOptions dispatcher;
  LogFlags log;
};

absl::Status RunRouter(const RouterCommandFlags& flags) {
  BlockSignals();
  BATON_RETURN_IF_ERROR(StartLogging(flags.dispatcher.router_name, flags.log));
  const router::DispatcherOptions& dispatcher = flags.dispatcher;
  if (dispatcher.workers.empty() && dispatcher.workers_file.empty() && !dispatcher.etcd.on()) {
    return absl::InvalidArgumentError("the router needs --workers, --workers-file or --etcd");
  }
  BATON_RETURN_IF_ERROR(CheckEtcdFlags(dispatcher.etcd, flags.router.insecure));
  std::unique_ptr<RouterNode> node;
  if (!flags.router.access_log.empty()) CatchHangups([&node] { node->ReopenLogs(); });
  BATON_ASSIGN_OR_RETURN(node, RouterNode::Start(flags.router, flags.dispatcher));
  fmt::print("ready {}\n", node->Addresses());
  std::fflush(stdout);
  WaitForSignal();
  node->Drain();
  return absl::OkStatus();
}

}  // namespace

Action AddRouter(CLI::App* app) {
  auto flags = std::make_shared<RouterCommandFlags>();
  app->add_option("-m,--model", flags->dispatcher.model_path,
                  "GGUF file, for its tokenizer and chat template")
      ->required();
  app->add_option("--name", flags->dispatcher.router_name, "this router's name in logs")
      ->capture_default_str();
  app->add_option(
         "--workers", flags->dispatcher.workers,
         "addresses of workers: a:1,b:2; dns:NAME:PORT: all that the name has in DNS, looked "
         "up again and again")
      ->delimiter(',');
  app->add_option("--workers-file", flags->dispatcher.workers_file,
                  "file with an address a line, read again when it changes");
  AddEtcdFlags(app, &flags->dispatcher.etcd);
  AddRouterFlags(app, &flags->router);
  AddLinkFlags(app, &flags->router.link_tls);
  app->add_option("--link-name", flags->router.link_name,
                  "name that the workers' certificates must bear; the dialled host when not given");
  AddLogFlags(app, &flags->log);
  return [flags] { return RunRouter(*flags); };
}

}  // namespace baton::cli
