#include "cli/engine_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/status_macros.h"
#include "worker_common/constraints.h"

namespace baton::cli {

void AddEngineFlags(CLI::App* app, EngineFlags* flags, const std::string& kv_mb_default_text) {
  app->add_option("-m,--model", flags->model, "GGUF file")->capture_default_str();
  app->add_option("--device", flags->device,
                  "what computes: cpu, or cuda (an NVIDIA GPU, in a build with CUDA)")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app->add_option("--threads", flags->threads, "compute threads; 0: the CPUs this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app->add_option("--pin-threads", flags->pin_threads,
                  "keep each compute thread on a CPU of its own; for processes that share none")
      ->capture_default_str();
  app->add_option("--isa", flags->isa, "instruction set: auto, portable, avx2, avx512, amx")
      ->capture_default_str();
  app->add_option("--kv-dtype", flags->kv_dtype, "KV cache format: " + kernels::KvDTypeNames())
      ->capture_default_str();
  app->add_option("--block-tokens", flags->block_tokens, "tokens of a KV block: 8, 16, 32")
      ->check(CLI::IsMember({8, 16, 32}))
      ->capture_default_str();
  app->add_option("--chunk-tokens", flags->chunk_tokens, "most prompt tokens computed in one step")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  app->add_option("--kv-mb", flags->kv_mb, "KV cache in MiB; 0: " + kv_mb_default_text)
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->capture_default_str();
  app->add_option("--max-context", flags->max_context, "longest sequence; 0: the model's")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--prefix-cache", flags->prefix_cache, "keep and reuse KV of equal prefixes")
      ->capture_default_str();
}

std::vector<std::string> ToArguments(const EngineFlags& flags) {
  return {"--model=" + flags.model,
          "--device=" + flags.device,
          fmt::format("--threads={}", flags.threads),
          fmt::format("--pin-threads={}", flags.pin_threads),
          "--isa=" + flags.isa,
          "--kv-dtype=" + flags.kv_dtype,
          fmt::format("--block-tokens={}", flags.block_tokens),
          fmt::format("--chunk-tokens={}", flags.chunk_tokens),
          fmt::format("--kv-mb={}", flags.kv_mb),
          fmt::format("--max-context={}", flags.max_context),
          fmt::format("--prefix-cache={}", flags.prefix_cache)};
}

absl::StatusOr<kernels::KvDType> KvDTypeOf(const EngineFlags& flags) {
  const std::optional<kernels::KvDType> dtype = kernels::KvDTypeFromName(flags.kv_dtype);
  if (dtype.has_value()) return *dtype;
  return absl::InvalidArgumentError(fmt::format("--kv-dtype is '{}', but must be one of {}",
                                                flags.kv_dtype, kernels::KvDTypeNames()));
}

absl::StatusOr<LoadedModel> LoadModel(const EngineFlags& flags) {
  LoadedModel loaded;
  BATON_ASSIGN_OR_RETURN(loaded.file, GgufFile::Open(flags.model));
  BATON_ASSIGN_OR_RETURN(loaded.tokenizer, text::Tokenizer::Create(*loaded.file));
  engine::LocalEngineOptions options;
  options.cuda = flags.device == "cuda";
  options.threads = flags.threads;
  options.pin_threads = flags.pin_threads;
  BATON_ASSIGN_OR_RETURN(options.isa, kernels::CpuIsaFromName(flags.isa));
  BATON_ASSIGN_OR_RETURN(options.kv_dtype, KvDTypeOf(flags));
  options.block_tokens = flags.block_tokens;
  options.kv_bytes = flags.kv_mb << 20;
  options.max_context = flags.max_context;
  options.prefix_cache = flags.prefix_cache;
  options.make_constraint = worker_common::ConstraintMakerFor(*loaded.tokenizer);
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (terminal) {
    options.progress = [&flags](double share) {
      std::fprintf(stderr, "\rloading %s: %3.0f%%%s", flags.model.c_str(), share * 100,
                   share >= 1 ? "\n" : "");
    };
  }
  BATON_ASSIGN_OR_RETURN(loaded.engine, engine::LocalEngine::Load(*loaded.file, options));
  return loaded;
}

}  // namespace baton::cli
