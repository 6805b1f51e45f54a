// `baton drain WORKER`: a worker of a running cluster takes no new work, and is done with the old.

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <memory>

#include "cli/change_worker.h"
#include "cli/command_line.h"

namespace baton::cli {
namespace {

struct DrainFlags {
  ChangeFlags change;
  bool undo = false;
};

absl::Status Drain(const DrainFlags& flags) {
  const std::string body = boost::json::serialize(boost::json::object{
      {"grace_s", flags.change.grace_s}, {"force", flags.change.force}, {"undo", flags.undo}});
  const std::string wanted = flags.undo ? "ready" : "drained";
  return ChangeWorker(
      flags.change, "drain", body, [&](const WorkerNow& now) { return now.state == wanted; },
      flags.undo ? "takes work again" : "is drained");
}

}  // namespace

Action AddDrain(CLI::App* app) {
  auto flags = std::make_shared<DrainFlags>();
  AddChangeFlags(app, &flags->change);
  app->add_flag("--undo", flags->undo, "let it take work again");
  return [flags] { return Drain(*flags); };
}

}  // namespace baton::cli
