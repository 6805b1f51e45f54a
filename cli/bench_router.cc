// `baton bench router`: what the router costs, and how it holds its targets. The router is a
// process of its own, this program again; the workers are simulated here, and speak the real
// protocol.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "bench/placement_bench.h"
#include "bench/process_stat.h"
#include "bench/report.h"
#include "bench/router_bench.h"
#include "cli/command_line.h"
#include "cli/print_line.h"
#include "cli/progress_line.h"
#include "cli/signals.h"
#include "cli/subprocess.h"
#include "common/file_limit.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model_file/gguf.h"
#include "text/tokenizer.h"

namespace baton::cli {
namespace {

constexpr Duration kReadyTimeout = std::chrono::seconds(60);
constexpr int32_t kContextTokens = 1 << 20;
constexpr std::string_view kAnswer =
    "The sky looks blue because air scatters short waves of light more than long ones. Sunlight "
    "holds all colours; on its way through the atmosphere the blue part is sent in every "
    "direction, "
    "so it reaches our eyes from everywhere, while the red part mostly goes straight on.";

struct RouterBenchFlags {
  std::string model;
  bench::RouterBenchOptions bench;
  bench::SimulatedWorkersOptions workers;
  bench::Repeats placement;
  std::vector<std::string> only;
  std::vector<std::string> router_flags;
  double rate = 0;
  int32_t http_threads = 1;
  bool json = false;
};

// What the router is to hold; rows without one are beside them to explain.
const std::map<std::string, double>& Targets() {
  static const std::map<std::string, double> targets = {
      {"cpu_ms_per_request", 0.4},       {"cpu_ms_per_request_unary", 0.12},
      {"requests_per_s_per_core", 2000}, {"added_ttft_p50_ms", 0.3},
      {"added_ttft_p99_ms", 2},          {"prompt_100k_text_ms", 40},
      {"prompt_100k_ids_ms", 3},         {"placement_us_1000", 50},
      {"placement_us_10000", 200},       {"idle_streams_bytes_each", 53687},
      {"memory_growth_percent", 2}};
  return targets;
}

void Print(const RouterBenchFlags& flags, const std::vector<bench::RouterRow>& rows) {
  for (const bench::RouterRow& row : rows) {
    if (flags.json) {
      PrintLine(fmt::format(R"({{"name":{},"value":{:.6g},"unit":{}}})",
                            bench::JsonString(row.name), row.value, bench::JsonString(row.unit)));
      continue;
    }
    const auto target = Targets().find(row.name);
    PrintLine(fmt::format("{:<28} {:>12.6g} {:<10} {}", row.name, row.value, row.unit,
                          target == Targets().end() ? "" : fmt::format("{:g}", target->second)));
  }
}

// The model's tokenizer and template with a context that holds the longest prompt: a file in which
// the weights, that no router reads, are holes.
class LongContextModel {
 public:
  ~LongContextModel() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  absl::Status Make(const GgufFile& file) {
    const auto directory = file.directory();
    std::string bytes(reinterpret_cast<const char*>(directory.data()), directory.size());
    BATON_ASSIGN_OR_RETURN(const std::string_view architecture,
                           file.String("general.architecture"));
    const std::string key = fmt::format("{}.context_length", architecture);
    const size_t at = bytes.find(key);
    // The key, its type (4: a 32-bit number), and the number.
    const uint32_t expected_type = 4;
    if (at == std::string::npos || at + key.size() + 8 > bytes.size() ||
        std::memcmp(&bytes[at + key.size()], &expected_type, 4) != 0) {
      return absl::InvalidArgumentError(fmt::format("{} has no {} of 32 bits", file.path(), key));
    }
    const uint32_t context = kContextTokens;
    std::memcpy(&bytes[at + key.size() + 4], &context, sizeof(context));
    std::string folder = (std::filesystem::temp_directory_path() / "baton_bench_XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) {
      return absl::InternalError(fmt::format("cannot make a folder {}", folder));
    }
    folder_ = folder;
    std::ofstream out(path(), std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    std::error_code error;
    std::filesystem::resize_file(path(), static_cast<uintmax_t>(file.file_bytes()), error);
    if (!out || error) return absl::InternalError(fmt::format("cannot write {}", path()));
    return absl::OkStatus();
  }
  std::string path() const { return folder_ + "/bench-model.gguf"; }

 private:
  std::string folder_;
};

struct RouterProcess {
  Subprocess process;
  bench::LoadUrl url;
};

absl::StatusOr<RouterProcess> StartRouter(const RouterBenchFlags& flags, const std::string& model,
                                          const std::vector<std::string>& workers) {
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) return absl::InternalError("cannot tell the path of this program");
  std::vector<std::string> command = {self,
                                      "router",
                                      "--model=" + model,
                                      fmt::format("--workers={}", fmt::join(workers, ",")),
                                      "--http=127.0.0.1:0",
                                      "--grpc=127.0.0.1:0",
                                      fmt::format("--http-threads={}", flags.http_threads),
                                      "--max-concurrent-requests=100000",
                                      "--max-connections=100000",
                                      "--request-timeout=3600",
                                      "--drain-timeout=1",
                                      "--log-level=warning"};
  command.insert(command.end(), flags.router_flags.begin(), flags.router_flags.end());
  BATON_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(command, /*capture_stdout=*/true));
  const absl::StatusOr<std::string> ready = process.ReadLine(kReadyTimeout);
  if (!ready.ok() || !ready->starts_with("ready http=")) {
    return absl::UnavailableError("the router did not start; its error is above");
  }
  const std::string address = ready->substr(11, ready->find(' ', 11) - 11);
  BATON_ASSIGN_OR_RETURN(const bench::LoadUrl url, bench::ParseLoadUrl("http://" + address));
  return RouterProcess{std::move(process), url};
}

class Runner {
 public:
  Runner(const RouterBenchFlags& flags, std::string model)
      : flags_(flags), model_(std::move(model)) {}

  absl::Status Run() {
    BATON_RETURN_IF_ERROR(Placement());
    if (Wanted("streams") || Wanted("half-load") || Wanted("unary") || Wanted("long-prompts")) {
      BATON_RETURN_IF_ERROR(OneRouter([this](bench::RouterBench& bench) { return Costs(bench); }));
    }
    if (Wanted("idle")) {
      BATON_RETURN_IF_ERROR(
          OneRouter([this](bench::RouterBench& bench) { return Show(bench.IdleStreams()); }));
    }
    if (!Wanted("memory")) return absl::OkStatus();
    return OneRouter([this](bench::RouterBench& bench) { return Show(bench.MemoryGrowth()); });
  }

 private:
  bool Wanted(const std::string& part) const {
    return flags_.only.empty() ||
           std::find(flags_.only.begin(), flags_.only.end(), part) != flags_.only.end();
  }

  absl::Status Show(const absl::StatusOr<std::vector<bench::RouterRow>>& rows) {
    progress_.Clear();
    if (!rows.ok()) return rows.status();
    Print(flags_, *rows);
    return absl::OkStatus();
  }

  absl::Status Placement() {
    if (!Wanted("placement")) return absl::OkStatus();
    std::vector<bench::RouterRow> rows;
    for (const int32_t workers : {1000, 10000}) {
      rows.push_back({fmt::format("placement_us_{}", workers),
                      bench::PlacementMicroseconds(workers, flags_.placement), "us"});
      BATON_RETURN_IF_ERROR(bench::CheckStop(StopAsked));
    }
    return Show(rows);
  }

  absl::Status Costs(bench::RouterBench& bench) {
    double rate = flags_.rate;
    if (Wanted("streams") || (Wanted("half-load") && rate == 0)) {
      BATON_ASSIGN_OR_RETURN(const std::vector<bench::RouterRow> rows, bench.Streams());
      if (rate == 0) rate = rows.front().value / 2;
      BATON_RETURN_IF_ERROR(Show(rows));
    }
    if (Wanted("half-load")) BATON_RETURN_IF_ERROR(Show(bench.HalfLoad(rate)));
    if (Wanted("unary")) BATON_RETURN_IF_ERROR(Show(bench.Unary()));
    if (Wanted("long-prompts")) BATON_RETURN_IF_ERROR(Show(bench.LongPrompts()));
    return absl::OkStatus();
  }

  // A fresh router, on a CPU of its own where there is more than one.
  absl::Status OneRouter(const std::function<absl::Status(bench::RouterBench&)>& measure) {
    BATON_ASSIGN_OR_RETURN(const auto workers, bench::SimulatedWorkers::Start(flags_.workers));
    BATON_ASSIGN_OR_RETURN(RouterProcess router, StartRouter(flags_, model_, workers->addresses()));
    std::vector<int> cpus = bench::AllowedCpus();
    if (cpus.size() > 1) {
      BATON_RETURN_IF_ERROR(bench::PinProcess(router.process.pid(), {cpus.back()}));
      cpus.pop_back();
      BATON_RETURN_IF_ERROR(bench::PinProcess(getpid(), cpus));
    }
    bench::RouterBenchOptions options = flags_.bench;
    options.stop = StopAsked;
    options.progress = [this](const std::string& text) { progress_.Show(text); };
    absl::StatusOr<bench::RouterBench> bench =
        bench::RouterBench::Connect(options, router.url, router.process.pid(), workers.get());
    absl::Status status = bench.ok() ? measure(*bench) : bench.status();
    router.process.Signal(SIGTERM);
    router.process.WaitFor(std::chrono::seconds(20));
    return status;
  }

  const RouterBenchFlags& flags_;
  const std::string model_;
  ProgressLine progress_;
};

absl::Status BenchRouter(const RouterBenchFlags& flags) {
  InitLogging("bench", LogLevel::kError);
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(flags.model));
  BATON_ASSIGN_OR_RETURN(const auto tokenizer, text::Tokenizer::Create(*file));
  LongContextModel model;
  BATON_RETURN_IF_ERROR(model.Make(*file));
  RouterBenchFlags with = flags;
  with.workers.vocab_size = tokenizer->vocab_size();
  with.workers.context_tokens = kContextTokens;
  with.workers.answer = tokenizer->Encode(kAnswer, text::SpecialTokens::kPlainText);
  // Room for other files, here and in the router.
  const int64_t files = RaiseFileLimit();
  with.bench.idle_streams = std::min(with.bench.idle_streams, std::max<int64_t>(files - 200, 1));
  CatchStopSignals();
  if (!flags.json)
    PrintLine(fmt::format("{:<28} {:>12} {:<10} {}", "name", "value", "unit", "target"));
  return Runner(with, model.path()).Run();
}

}  // namespace

Action AddBenchRouter(CLI::App* app) {
  auto flags = std::make_shared<RouterBenchFlags>();
  bench::RouterBenchOptions& options = flags->bench;
  app->add_option("-m,--model", flags->model, "GGUF file, for its tokenizer and chat template")
      ->required();
  app->add_option("--requests", options.requests, "requests of each measurement")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app->add_option("--prompt", options.prompt_tokens, "tokens of a prompt")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--generate", options.output_tokens, "tokens of an answer")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--concurrency", options.concurrency,
                  "streams open at a time, to keep the router busy")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app->add_option("--unary-concurrency", options.unary_concurrency,
                  "likewise of answers in one piece")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app->add_option("--rate", flags->rate,
                  "requests a second for the latencies; 0: half of what the router could do")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app->add_option("--long-prompts", options.long_prompts,
                  "prompts of 100,000 tokens of each kind; a value is their median")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app->add_option("--idle-streams", options.idle_streams,
                  "streams open at once; fewer where a process may not have as many files")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--growth-requests", options.growth_requests,
                  "short requests between the two looks at the router's memory")
      ->check(CLI::Range(1, 1'000'000'000))
      ->capture_default_str();
  app->add_option("--prefill-workers", flags->workers.prefill, "simulated")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app->add_option("--decode-workers", flags->workers.decode, "simulated")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app->add_option("--http-threads", flags->http_threads, "of the router")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app->add_option("--only", flags->only,
                  "parts: placement, streams, half-load, unary, long-prompts, idle, memory")
      ->delimiter(',')
      ->check(CLI::IsMember(
          {"placement", "streams", "half-load", "unary", "long-prompts", "idle", "memory"}));
  app->add_option("--router-flag", flags->router_flags,
                  "one more flag for the router: --name=value");
  app->add_option("--repeat", flags->placement.count,
                  "measurements of placement; a value is their median")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_flag("--json", flags->json, "print a JSON object a row: {\"name\",\"value\",\"unit\"}");
  return [flags] { return BenchRouter(*flags); };
}

}  // namespace baton::cli
