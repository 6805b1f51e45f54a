#pragma once

// How many tokens a second an engine of this process computes: prefill, and decode at several batch
// sizes.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/ceilings.h"
#include "bench/report.h"
#include "bench/timing.h"
#include "engine/local_engine.h"
#include "model_file/gguf.h"

namespace baton::bench {

struct EngineBenchOptions {
  // threads, isa, kv_dtype, block_tokens, max_context and progress are used; the rest is set.
  engine::LocalEngineOptions engine;
  std::vector<int32_t> batches = {1, 8, 16};
  int32_t prompt_tokens = 512;
  int32_t generated_tokens = 128;
  int32_t chunk_tokens = 512;  // most prompt tokens of a step
  int32_t repeat = 3;
  std::function<double()> dram_gb_s = nullptr;  // asked before and after each decode
  StopRequested stop = nullptr;
};

// What the work of a row would cost at the machine's ceilings: to be compared with what it took.
struct EngineWork {
  double prefill_ops = 0;   // of one prompt: 2 per weight of each token, and attention
  double prefill_s = 0;     // every operation at the ceiling of its arithmetic; 0: one has none
  double decode_bytes = 0;  // of a mean decode step: weights and KV that are read
};

// Owns the engine, sized for the largest batch; nothing is shared between sequences (no prefix
// cache, other random tokens for each). One device thread.
class EngineBench {
 public:
  // Loads the model. InvalidArgument for options without sense, with the numbers: no batch, a
  // batch, prompt, output or repeat below 1, a prompt and its output over the context.
  static absl::StatusOr<std::unique_ptr<EngineBench>> Load(const GgufFile& file,
                                                           const EngineBenchOptions& options);

  // Prefill of `batch` prompts one after another, then decode steps of all of them together
  // (greedy, past end tokens), each repeat with other prompts; medians over the repeats. Every
  // decode step is counted that follows a sequence's first token. `progress` is told the share
  // done. Cancelled on a stop.
  absl::StatusOr<EngineRow> Measure(int32_t batch,
                                    const std::function<void(double)>& progress = nullptr);

  EngineWork WorkOf(int32_t batch, const Ceilings& ceilings) const;

  const kernels::Ops& ops() const { return engine_->ops(); }
  const kernels::KvLayout& layout() const { return engine_->executor().pool().layout(); }
  const std::string& name() const { return name_; }  // of the file
  double load_s() const { return load_s_; }
  int64_t parameters() const { return parameters_; }
  int64_t weight_bytes() const;  // resident
  int64_t kv_bytes() const;      // of the whole cache

 private:
  struct MatrixCount {
    DType dtype;
    double weights;    // elements
    bool every_token;  // else once a prompt: after its last KV
  };
  EngineBench(const EngineBenchOptions& options, std::string name)
      : options_(options), name_(std::move(name)) {}
  absl::Status CountMatrices(const GgufFile& file);
  absl::StatusOr<std::vector<engine::Sequence>> NewSequences(int32_t batch, int32_t repeat) const;
  absl::Status Prefill(engine::Sequence* sequence);
  absl::Status DecodeStep(std::vector<engine::Sequence>* sequences);

  const EngineBenchOptions options_;
  const std::string name_;
  std::unique_ptr<engine::LocalEngine> engine_;
  std::vector<MatrixCount> matrices_;
  double read_share_ = 1;  // of the weight bytes that a decode step reads
  double load_s_ = 0;
  int64_t parameters_ = 0;
};

// The benchmark's head (model, memory), its rows with shares, and the ceilings, for people.
std::string EngineTableHead(const EngineBench& bench);
std::string EngineTableLine(const EngineRow& row, const EngineWork& work, const Ceilings& ceilings);
std::string CeilingsText(const Ceilings& ceilings);  // one line

}  // namespace baton::bench
