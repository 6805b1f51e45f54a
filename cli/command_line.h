#pragma once

// `baton COMMAND ...`: flags, environment and YAML file to options, options to the command.
//
// Every long flag `--some-name` of a command is also the YAML key `some-name` (in the file given by
// --config) and the variable BATON_SOME_NAME. A flag beats the environment, which beats the file.
// Unknown names are errors that name the nearest known one. Exit codes: 0 done, 1 failed, 2 bad
// usage; errors are one line on standard error, "baton: ...".

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace baton::cli {

int Main(int argc, char** argv);

// A subcommand, named by one word or by two ("bench engine"): adds its flags to `app` and gives
// what to do once they are parsed.
using Action = std::function<absl::Status()>;
struct Command {
  std::string name;
  std::string summary;
  std::function<Action(CLI::App* app)> add;
};

// All of them, in the order of --help.
const std::vector<Command>& Commands();

// One function per command, each in a file of its name's first word.
Action AddUp(CLI::App* app);
Action AddRouter(CLI::App* app);
Action AddWorker(CLI::App* app);
Action AddRun(CLI::App* app);
Action AddChat(CLI::App* app);
Action AddDrain(CLI::App* app);
Action AddRole(CLI::App* app);
Action AddTop(CLI::App* app);
Action AddEval(CLI::App* app);
Action AddBenchKernels(CLI::App* app);
Action AddBenchEngine(CLI::App* app);
Action AddBenchTransfer(CLI::App* app);
Action AddBenchRouter(CLI::App* app);
Action AddBenchServe(CLI::App* app);
Action AddPlan(CLI::App* app);
Action AddSimulate(CLI::App* app);
Action AddKeysAdd(CLI::App* app);
Action AddKeysList(CLI::App* app);
Action AddKeysRevoke(CLI::App* app);
Action AddPull(CLI::App* app);
Action AddModels(CLI::App* app);
Action AddDoctor(CLI::App* app);

}  // namespace baton::cli
