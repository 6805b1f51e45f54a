// `baton bench ...`: how fast this machine computes, and how near that is to what it could do.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "bench/device_bench.h"
#include "bench/engine_bench.h"
#include "bench/kernel_bench.h"
#include "cli/command_line.h"
#include "cli/engine_flags.h"
#include "cli/print_line.h"
#include "cli/progress_line.h"
#include "cli/signals.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

struct EngineBenchFlags {
  EngineFlags engine{.chunk_tokens = 512};
  bench::EngineBenchOptions bench;
  bool json = false;
};

absl::Status BenchEngine(const EngineBenchFlags& flags) {
  ProgressLine progress;
  bench::EngineBenchOptions options = flags.bench;
  options.chunk_tokens = flags.engine.chunk_tokens;
  options.stop = StopAsked;
  engine::LocalEngineOptions& local = options.engine;
  local.cuda = flags.engine.device == "cuda";
  if (local.cuda && !flags.json) {
    return absl::InvalidArgumentError(
        "--device cuda needs --json: the table's ceilings are the CPU's, and say nothing of a GPU");
  }
  local.threads = flags.engine.threads;
  local.pin_threads = flags.engine.pin_threads;
  BATON_ASSIGN_OR_RETURN(local.isa, kernels::CpuIsaFromName(flags.engine.isa));
  BATON_ASSIGN_OR_RETURN(local.kv_dtype, KvDTypeOf(flags.engine));
  local.block_tokens = flags.engine.block_tokens;
  local.max_context = flags.engine.max_context;
  local.progress = [&](double share) {
    progress.Show(fmt::format("loading {}: {:.0f}%", flags.engine.model, share * 100));
  };
  std::unique_ptr<bench::DramProbe> dram;
  if (!flags.json) options.dram_gb_s = [&dram] { return dram->ReadGbS(); };
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file,
                         GgufFile::Open(flags.engine.model));
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<bench::EngineBench> bench,
                         bench::EngineBench::Load(*file, options));
  CatchStopSignals();
  const bench::CeilingOptions ceiling_options{
      .threads = local.threads, .isa = local.isa, .stop = StopAsked};
  bench::Ceilings ceilings;
  if (!flags.json) {
    PrintLine(bench::EngineTableHead(*bench));
    progress.Show("measuring ceilings");
    BATON_ASSIGN_OR_RETURN(dram, bench::MakeDramProbe(ceiling_options));
    BATON_ASSIGN_OR_RETURN(ceilings, bench::MeasureCeilings(ceiling_options));
  }
  for (const int32_t batch : options.batches) {
    BATON_ASSIGN_OR_RETURN(const bench::EngineRow row, bench->Measure(batch, [&](double share) {
      progress.Show(fmt::format("batch {}: {:.0f}%", batch, share * 100));
    }));
    if (!flags.json) BATON_RETURN_IF_ERROR(bench::MeasureAgain(ceiling_options, &ceilings));
    progress.Clear();
    PrintLine(flags.json ? bench::EngineRowJson(row)
                         : bench::EngineTableLine(row, bench->WorkOf(batch, ceilings), ceilings));
  }
  if (!flags.json) PrintLine("\n" + bench::CeilingsText(ceilings));
  return absl::OkStatus();
}

struct KernelBenchFlags {
  bench::KernelBenchOptions bench;
  std::string device = "cpu";
  int32_t gpu = 0;
  std::string isa = "auto";
  bool json = false;
};

absl::Status BenchDevice(const KernelBenchFlags& flags) {
  BATON_ASSIGN_OR_RETURN(const auto ops,
                         kernels::CreateCudaOps({flags.gpu, bench::kDeviceBenchRows}));
  ProgressLine progress;
  bench::DeviceBenchOptions options;
  options.filter = flags.bench.filter;
  options.repeats = flags.bench.repeats;
  options.stop = StopAsked;
  options.progress = [&](const std::string& name) { progress.Show("measuring " + name); };
  CatchStopSignals();
  bool head = !flags.json;
  return bench::RunDeviceBench(ops.get(), options, [&](const bench::KernelRow& row) {
    progress.Clear();
    if (std::exchange(head, false)) PrintLine(bench::KernelTableHead());
    PrintLine(flags.json ? bench::KernelRowJson(row) : bench::KernelTableLine(row));
  });
}

absl::Status BenchKernels(const KernelBenchFlags& flags) {
  if (flags.device == "cuda") return BenchDevice(flags);
  ProgressLine progress;
  bench::KernelBenchOptions options = flags.bench;
  BATON_ASSIGN_OR_RETURN(options.isa, kernels::CpuIsaFromName(flags.isa));
  options.stop = StopAsked;
  options.progress = [&](const std::string& name) { progress.Show("measuring " + name); };
  CatchStopSignals();
  bool head = !flags.json;
  return bench::RunKernelBench(options, [&](const bench::KernelRow& row) {
    progress.Clear();
    if (std::exchange(head, false)) PrintLine(bench::KernelTableHead());
    PrintLine(flags.json ? bench::KernelRowJson(row) : bench::KernelTableLine(row));
  });
}

}  // namespace

Action AddBenchKernels(CLI::App* app) {
  auto flags = std::make_shared<KernelBenchFlags>();
  bench::KernelBenchOptions& options = flags->bench;
  app->add_option("--threads", options.threads, "compute threads; 0: the CPUs this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app->add_option("--isa", flags->isa, "instruction set: auto, portable, avx2, avx512, amx")
      ->capture_default_str();
  app->add_option("--device", flags->device, "whose kernels: cpu, cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app->add_option("--gpu", flags->gpu, "with --device cuda: which GPU")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--filter", options.filter,
                  "regular expression, found anywhere in a row's \"name shape type\": "
                  "'matmul 1 .*Q4', 'attention'; all when not given");
  app->add_option("--repeat", options.repeats.count, "measurements; a value is their median")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_flag("--json", flags->json,
                "print a JSON object a row: {\"name\",\"shape\",\"type\",\"threads\",\"value\","
                "\"unit\",\"ceiling\",\"share\"}");
  return [flags] { return BenchKernels(*flags); };
}

Action AddBenchEngine(CLI::App* app) {
  auto flags = std::make_shared<EngineBenchFlags>();
  AddEngineFlags(app, &flags->engine, "");
  // The cache is sized for the largest batch, and no two prompts are alike.
  app->remove_option(app->get_option("--kv-mb"));
  app->remove_option(app->get_option("--prefix-cache"));
  bench::EngineBenchOptions& options = flags->bench;
  app->add_option("--batch", options.batches, "sequences decoded together: one row for each")
      ->delimiter(',')
      ->default_str("1,8,16");
  app->add_option("--prompt", options.prompt_tokens, "tokens of each prompt")
      ->capture_default_str();
  app->add_option("--generate", options.generated_tokens, "decode steps after the first token")
      ->capture_default_str();
  app->add_option("--repeat", options.repeat, "measurements; rates are their medians")
      ->capture_default_str();
  app->add_flag("--json", flags->json,
                "print a JSON object a row: {\"model\",\"threads\",\"batch\",\"prompt_tokens\","
                "\"generated_tokens\",\"prefill_tokens_per_s\",\"decode_tokens_per_s\"}");
  return [flags] { return BenchEngine(*flags); };
}

}  // namespace baton::cli
