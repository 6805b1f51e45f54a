#pragma once

// A model ready to run in this process: ops, weights, KV slab and executor in one owner.
// `baton run` and `baton eval` use it as it is; workers give it a slab of their transport.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "engine/executor.h"
#include "engine/host_slab.h"
#include "engine/model.h"
#include "kernels/ops.h"
#include "model_file/gguf.h"

namespace baton::engine {

struct LocalEngineOptions {
  bool reference_ops = false;  // the slow judge instead of the cpu backend
  bool cuda = false;           // the cuda backend instead of the cpu's
  int32_t gpu = 0;             // with cuda
  int32_t threads = 0;         // 0: what the process may use
  bool pin_threads = false;    // as in kernels::CpuOptions
  kernels::CpuIsa isa = kernels::CpuIsa::kAuto;
  kernels::KvDType kv_dtype = kernels::KvDType::kF16;
  int32_t block_tokens = 16;
  int64_t block_count = 0;  // 0: as many blocks as kv_bytes hold
  int64_t kv_bytes = 0;     // with block_count 0; 0: one sequence of full context
  int32_t max_context = 0;  // 0: the model's
  int32_t max_rows = 512;
  int32_t max_logit_rows = 64;
  bool prefix_cache = true;
  ConstraintMaker make_constraint = nullptr;       // as in ExecutorOptions
  std::function<void(double)> progress = nullptr;  // share of weights loaded
  // Gives the slab, which outlives the engine; null: the engine maps and owns one.
  std::function<absl::StatusOr<std::span<std::byte>>(int64_t bytes)> allocate_slab = nullptr;
  // Keeps the KV in a slab of the device's beside that of allocate_slab, which a device with memory
  // of its own always does. For tests where it has none.
  bool mirror_slab = false;
};

// Movable by its unique_ptr only. One device thread uses it.
class LocalEngine {
 public:
  // The file may be closed afterwards. InvalidArgument for options without sense and for models
  // that are not supported; FailedPrecondition when the machine lacks `isa`.
  static absl::StatusOr<std::unique_ptr<LocalEngine>> Load(const GgufFile& file,
                                                           const LocalEngineOptions& options);
  LocalEngine(const LocalEngine&) = delete;
  LocalEngine& operator=(const LocalEngine&) = delete;

  const kernels::Ops& ops() const { return *ops_; }
  Model& model() { return *model_; }
  Executor& executor() { return *executor_; }
  // What allocate_slab gave, or else the device's own.
  std::span<std::byte> slab() const { return slab_; }

 private:
  LocalEngine() = default;
  absl::Status MakeExecutor(const LocalEngineOptions& options);

  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<Model> model_;
  HostSlab own_slab_;                             // empty when allocate_slab gave one
  std::unique_ptr<kernels::Buffer> device_slab_;  // likewise, of a device with memory of its own
  std::unique_ptr<KvMirror> mirror_;
  std::span<std::byte> slab_;
  std::unique_ptr<Executor> executor_;
};

}  // namespace baton::engine
