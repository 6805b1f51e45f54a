#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "cli/config.h"
#include "common/nearest_name.h"

extern char** environ;

namespace baton::cli {
namespace {

constexpr int kDone = 0, kFailed = 1, kBadUsage = 2;

int Usage(const std::string& text) {
  std::fprintf(stderr, "baton: %s\n", text.c_str());
  return kBadUsage;
}

std::vector<ConfigKey> KeysOf(const CLI::App& app) {
  std::vector<ConfigKey> keys;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (name == "help" || name == "config") continue;
      keys.push_back({name, option->get_expected_max() > 1});
    }
  }
  return keys;
}

// What CLI11 did not expect, with the nearest flag that it would have.
std::string Unexpected(const CLI::App& app) {
  for (const std::string& argument : app.remaining(true)) {
    if (!argument.starts_with("--")) continue;
    const std::string name = argument.substr(2, argument.find('=') - 2);
    std::vector<std::string> known = {"help", "config"};
    for (const ConfigKey& key : KeysOf(app)) known.push_back(key.name);
    const std::string nearest = NearestName(name, known);
    return fmt::format("{} has no flag --{}{}", app.get_name(), name,
                       nearest.empty() ? "" : fmt::format("; did you mean --{}?", nearest));
  }
  return fmt::format("{} does not expect '{}'", app.get_name(), app.remaining(true).front());
}

std::string UnknownCommand(const std::string& name) {
  std::vector<std::string> known;
  for (const Command& command : Commands()) known.push_back(command.name);
  const std::string nearest = NearestName(name, known);
  return fmt::format("there is no command '{}'{}; `baton --help` lists them", name,
                     nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
}

// The command's own arguments after what file and environment add. `all_keys` are every command's.
absl::StatusOr<std::vector<std::string>> Merge(const CLI::App& app,
                                               const std::vector<std::string>& arguments,
                                               const std::vector<ConfigKey>& all_keys) {
  std::map<std::string, std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return MergeConfig(KeysOf(app), all_keys, arguments, environment);
}

int RunCommand(CLI::App* app, const Action& action, const std::vector<std::string>& arguments,
               const std::vector<ConfigKey>& all_keys) {
  absl::StatusOr<std::vector<std::string>> merged = Merge(*app, arguments, all_keys);
  if (!merged.ok()) return Usage(std::string(merged.status().message()));
  try {
    app->parse(
        std::vector<std::string>(merged->rbegin(), merged->rend()));  // CLI11 wants it reversed
  } catch (const CLI::CallForHelp&) {
    std::fputs(app->help().c_str(), stdout);
    return kDone;
  } catch (const CLI::ExtrasError&) {
    return Usage(Unexpected(*app));
  } catch (const CLI::ParseError& error) {
    return Usage(fmt::format("{}: {}", app->get_name(), error.what()));
  }
  const absl::Status status = action();
  if (status.ok()) return kDone;
  std::fprintf(stderr, "baton: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

// Of all commands, or of those whose first word is `group`.
void PrintHelp(const std::string& group = "") {
  std::printf(
      "baton: disaggregated serving of large language models\n\nusage: baton %s [FLAGS]\n\n",
      group.empty() ? "COMMAND" : (group + " COMMAND").c_str());
  for (const Command& command : Commands()) {
    if (!group.empty() && !command.name.starts_with(group + " ")) continue;
    std::printf("  %-14s %s\n", command.name.c_str(), command.summary.c_str());
  }
  std::puts(
      "\n`baton COMMAND --help` tells a command's flags. A flag --some-name is also the key\n"
      "some-name of the YAML file given by --config, and the variable BATON_SOME_NAME.");
}

}  // namespace

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      {"up", "a whole cluster on this machine: router and workers", AddUp},
      {"router", "the router alone", AddRouter},
      {"worker", "one prefill or decode worker", AddWorker},
      {"run", "answer prompts in this process, without a network", AddRun},
      {"chat", "talk to a cluster", AddChat},
      {"drain", "let a worker of a running cluster end what it does, and take no more", AddDrain},
      {"role", "make a worker of a running cluster a prefill or a decode worker", AddRole},
      {"top", "watch a running cluster", AddTop},
      {"eval", "mean negative log likelihood of a text", AddEval},
      {"bench kernels", "each kernel, and its share of what the machine can do", AddBenchKernels},
      {"bench engine", "tokens per second of a model in this process", AddBenchEngine},
      {"bench transfer", "the KV handoff, and its share of what its way can do", AddBenchTransfer},
      {"bench router", "what the router itself costs", AddBenchRouter},
      {"bench serve", "a load on any OpenAI endpoint, and what its users see", AddBenchServe},
      {"plan", "how many prefill and decode workers a load needs", AddPlan},
      {"simulate", "play a load through a fleet, on the cost model", AddSimulate},
      {"keys add", "make an API key, and show it once", AddKeysAdd},
      {"keys list", "the API keys of a file", AddKeysList},
      {"keys revoke", "end an API key", AddKeysRevoke},
      {"pull", "get a known model", AddPull},
      {"models", "list local and known models", AddModels},
      {"doctor", "what this machine has of what Baton can use, and what is missing", AddDoctor},
  };
  return commands;
}

namespace {

bool IsHelp(const std::string& argument) {
  return argument == "--help" || argument == "-h" || argument == "help";
}

// Whether commands have `word` as the first of two.
bool IsGroup(const std::string& word) {
  return std::ranges::any_of(
      Commands(), [&](const Command& command) { return command.name.starts_with(word + " "); });
}

}  // namespace

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    PrintHelp();
    return kBadUsage;
  }
  if (IsHelp(arguments[0])) {
    PrintHelp();
    return kDone;
  }
  std::string name = arguments[0];
  size_t words = 1;
  if (IsGroup(name)) {
    if (arguments.size() < 2 || IsHelp(arguments[1])) {
      PrintHelp(name);
      return arguments.size() < 2 ? kBadUsage : kDone;
    }
    name += " " + arguments[1];
    words = 2;
  }
  std::vector<ConfigKey> all_keys;
  std::unique_ptr<CLI::App> chosen;
  Action action;
  for (const Command& command : Commands()) {
    auto app = std::make_unique<CLI::App>(command.summary, "baton " + command.name);
    app->add_option("--config", "YAML file with values for these flags")->type_name("FILE");
    Action act = command.add(app.get());
    const std::vector<ConfigKey> keys = KeysOf(*app);
    all_keys.insert(all_keys.end(), keys.begin(), keys.end());
    if (command.name == name) {
      chosen = std::move(app);
      action = std::move(act);
    }
  }
  if (chosen == nullptr) return Usage(UnknownCommand(name));
  return RunCommand(chosen.get(), action, {arguments.begin() + words, arguments.end()}, all_keys);
}

}  // namespace baton::cli
