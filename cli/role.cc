// `baton role WORKER prefill|decode`: a worker of a running cluster changes its role, with its
// weights, KV pool and prefix cache as they are.

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <memory>
#include <string>

#include "cli/change_worker.h"
#include "cli/command_line.h"

namespace baton::cli {
namespace {

struct RoleFlags {
  ChangeFlags change;
  std::string role;
};

absl::Status ChangeRole(const RoleFlags& flags) {
  const std::string body = boost::json::serialize(boost::json::object{
      {"grace_s", flags.change.grace_s}, {"force", flags.change.force}, {"role", flags.role}});
  return ChangeWorker(
      flags.change, "role", body,
      [&](const WorkerNow& now) { return now.role == flags.role && now.state == "ready"; },
      "is a " + flags.role + " worker");
}

}  // namespace

Action AddRole(CLI::App* app) {
  auto flags = std::make_shared<RoleFlags>();
  AddChangeFlags(app, &flags->change);
  app->add_option("role", flags->role, "prefill or decode")
      ->required()
      ->check(CLI::IsMember({"prefill", "decode"}));
  return [flags] { return ChangeRole(*flags); };
}

}  // namespace baton::cli
