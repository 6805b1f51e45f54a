#include "engine/local_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace baton::engine {
namespace {

constexpr int64_t kMaxSlabBytes = int64_t{1} << 46;

absl::StatusOr<int32_t> BlockCount(const LocalEngineOptions& options,
                                   const kernels::KvLayout& layout, int32_t context) {
  if (options.block_count < 0 || options.kv_bytes < 0) {
    return absl::InvalidArgumentError(fmt::format("{} KV blocks in {} bytes make no sense",
                                                  options.block_count, options.kv_bytes));
  }
  int64_t count = options.block_count;
  if (count == 0 && options.kv_bytes == 0) count = layout.BlocksFor(context);
  if (count == 0) count = options.kv_bytes / layout.block_bytes();
  const int64_t most = std::min<int64_t>(kMaxSlabBytes / layout.block_bytes(), INT32_MAX);
  if (count < 1 || count > most) {
    return absl::InvalidArgumentError(
        fmt::format("there is room for {} KV blocks of {} bytes, but there must be 1 to {}", count,
                    layout.block_bytes(), most));
  }
  return static_cast<int32_t>(count);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalEngine>> LocalEngine::Load(const GgufFile& file,
                                                               const LocalEngineOptions& options) {
  std::unique_ptr<LocalEngine> engine(new LocalEngine());
  if (options.reference_ops) {
    engine->ops_ = kernels::CreateReferenceOps();
  } else if (options.cuda) {
    BATON_ASSIGN_OR_RETURN(engine->ops_, kernels::CreateCudaOps({options.gpu, options.max_rows}));
  } else {
    BATON_ASSIGN_OR_RETURN(
        engine->ops_, kernels::CreateCpuOps(
                          {options.threads, options.isa, options.max_rows, options.pin_threads}));
  }
  BATON_ASSIGN_OR_RETURN(engine->model_, Model::Load(file, engine->ops_.get(),
                                                     {options.max_rows, options.max_logit_rows,
                                                      options.max_context, options.progress}));
  BATON_RETURN_IF_ERROR(engine->MakeExecutor(options));
  return engine;
}

absl::Status LocalEngine::MakeExecutor(const LocalEngineOptions& options) {
  const ModelConfig& config = model_->config();
  BATON_ASSIGN_OR_RETURN(const kernels::KvLayout layout,
                         LayoutFor(config, options.block_tokens, options.kv_dtype));
  BATON_RETURN_IF_ERROR(ops_->CheckLayout(layout));
  BATON_ASSIGN_OR_RETURN(const int32_t block_count, BlockCount(options, layout, config.context));
  const int64_t slab_bytes = block_count * layout.block_bytes();
  if (options.allocate_slab) {
    BATON_ASSIGN_OR_RETURN(slab_, options.allocate_slab(slab_bytes));
    if (static_cast<int64_t>(slab_.size()) < slab_bytes) {
      return absl::InternalError(
          fmt::format("a slab of {} bytes was asked for, {} came", slab_bytes, slab_.size()));
    }
    if (options.mirror_slab || !ops_->host_memory()) {
      slab_ = slab_.first(static_cast<size_t>(slab_bytes));
      BATON_ASSIGN_OR_RETURN(mirror_, KvMirror::Create(ops_.get(), layout, slab_));
    }
  } else if (!ops_->host_memory()) {
    BATON_ASSIGN_OR_RETURN(device_slab_, ops_->NewBuffer(slab_bytes));
    slab_ = {device_slab_->data(), static_cast<size_t>(slab_bytes)};
  } else {
    BATON_ASSIGN_OR_RETURN(own_slab_, HostSlab::Allocate(slab_bytes));
    slab_ = own_slab_.bytes();
  }
  const ExecutorOptions executor_options{layout, block_count, options.prefix_cache,
                                         options.make_constraint, mirror_.get()};
  executor_ = std::make_unique<Executor>(model_.get(), slab_, executor_options);
  return absl::OkStatus();
}

}  // namespace baton::engine
