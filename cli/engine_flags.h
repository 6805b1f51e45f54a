#pragma once

// Flags that `run`, `eval`, `worker` and `up` share: the model and how it is computed.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/local_engine.h"
#include "model_file/gguf.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct EngineFlags {
  std::string model = "models/SmolLM2-135M-Instruct.Q4_1.gguf";  // what `baton pull` gets
  std::string device = "cpu";  // or "cuda"
  int32_t threads = 0;
  bool pin_threads = false;
  std::string isa = "auto";
  std::string kv_dtype = "f16";
  int32_t block_tokens = 16;
  int32_t chunk_tokens = 256;
  int64_t kv_mb = 0;
  int32_t max_context = 0;
  bool prefix_cache = true;
};

// `kv_mb_default_text` says what 0 means for the command.
void AddEngineFlags(CLI::App* app, EngineFlags* flags, const std::string& kv_mb_default_text);

// The same flags as arguments for a child process.
std::vector<std::string> ToArguments(const EngineFlags& flags);

// The format that --kv-dtype names; InvalidArgument lists them.
absl::StatusOr<kernels::KvDType> KvDTypeOf(const EngineFlags& flags);

// A model for this process: the mapped file, its tokenizer, and the engine.
struct LoadedModel {
  std::shared_ptr<const GgufFile> file;
  std::unique_ptr<const text::Tokenizer> tokenizer;
  std::unique_ptr<engine::LocalEngine> engine;
};

// Loads with a progress line on standard error where that is a terminal.
absl::StatusOr<LoadedModel> LoadModel(const EngineFlags& flags);

}  // namespace baton::cli
