#include "worker_common/host.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "engine/model_config.h"
#include "kernels/cpu/cpu_isa.h"
#include "model_file/gguf.h"
#include "worker_common/constraints.h"

namespace baton::worker_common {
namespace {

constexpr int64_t kDefaultKvBytes = int64_t{1} << 30;

absl::Status CheckOptions(const WorkerOptions& options) {
  if (options.chunk_tokens < 1 || options.max_batch < 1 || options.queue_capacity < 1 ||
      options.kv_bytes < 0 || options.max_context < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "chunk_tokens {}, max_batch {} and queue_capacity {} must be at least 1, kv_bytes {} and "
        "max_context {} at least 0",
        options.chunk_tokens, options.max_batch, options.queue_capacity, options.kv_bytes,
        options.max_context));
  }
  return absl::OkStatus();
}

struct PoolSize {
  kernels::KvLayout layout;
  int32_t block_count = 0;
};

absl::StatusOr<PoolSize> SizePool(const WorkerOptions& options, const engine::ModelConfig& config) {
  PoolSize size;
  BATON_ASSIGN_OR_RETURN(size.layout,
                         engine::LayoutFor(config, options.block_tokens, options.kv_dtype));
  const int32_t context =
      options.max_context == 0 ? config.context : std::min(options.max_context, config.context);
  const int64_t context_bytes = size.layout.BlocksFor(context) * size.layout.block_bytes();
  const int64_t kv_bytes =
      options.kv_bytes == 0 ? std::max(kDefaultKvBytes, context_bytes) : options.kv_bytes;
  if (kv_bytes < context_bytes) {
    LogWarning(
        fmt::format("kv_bytes {} is less than the {} of one context of {} tokens: longer "
                    "prompts than fit will be refused",
                    kv_bytes, context_bytes, context));
  }
  const int64_t count = kv_bytes / size.layout.block_bytes();
  if (count < 1 || count > INT32_MAX) {
    return absl::InvalidArgumentError(fmt::format("kv_bytes {} holds {} blocks of {} bytes",
                                                  kv_bytes, count, size.layout.block_bytes()));
  }
  size.block_count = static_cast<int32_t>(count);
  return size;
}

}  // namespace

absl::StatusOr<std::string> ArithmeticFingerprint(const engine::ModelConfig& config,
                                                  kernels::CpuIsa wanted) {
  BATON_ASSIGN_OR_RETURN(kernels::CpuIsa isa, kernels::ResolveCpuIsa(wanted));
  // AMX has bits of its own in products with BF16 only.
  if (isa == kernels::CpuIsa::kAmx && !config.bf16_weights) isa = kernels::CpuIsa::kAvx512;
  return fmt::format("{} {}", config.fingerprint, kernels::CpuIsaName(isa));
}

absl::StatusOr<std::unique_ptr<WorkerHost>> WorkerHost::Create(const WorkerOptions& options,
                                                               worker_link::Role role) {
  const ScopedLogName log_name(options.name);
  BATON_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<WorkerHost> host(new WorkerHost(options));
  BATON_RETURN_IF_ERROR(host->LoadModel());
  BATON_RETURN_IF_ERROR(host->Serve(role));
  return host;
}

absl::Status WorkerHost::LoadModel() {
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file,
                         GgufFile::Open(options_.model_path));
  BATON_ASSIGN_OR_RETURN(const engine::ModelConfig config, engine::ModelConfig::FromGguf(*file));
  BATON_ASSIGN_OR_RETURN(const PoolSize size, SizePool(options_, config));
  std::string fingerprint = fmt::format("{} cuda", config.fingerprint);
  if (!options_.cuda) {
    BATON_ASSIGN_OR_RETURN(fingerprint, ArithmeticFingerprint(config, options_.isa));
  }

  kv_transfer::HandoffOptions handoff;
  handoff.transport = options_.transport;
  handoff.ucx_tls = options_.ucx_tls;
  handoff.gpu = options_.gpu;
  handoff.layout = size.layout;
  handoff.model_fingerprint = fingerprint;
  handoff.block_count = size.block_count;
  handoff.lease = options_.lease;
  handoff.offer_timeout = options_.offer_timeout;
  handoff.ready_timeout = options_.ready_timeout;
  handoff.faults = options_.transport_faults;

  engine::LocalEngineOptions engine;
  engine.cuda = options_.cuda;
  engine.gpu = options_.gpu;
  engine.threads = options_.threads;
  engine.pin_threads = options_.pin_threads;
  engine.isa = options_.isa;
  engine.kv_dtype = options_.kv_dtype;
  engine.block_tokens = options_.block_tokens;
  engine.block_count = size.block_count;
  engine.max_context = options_.max_context;
  engine.max_rows = options_.chunk_tokens + options_.max_batch;
  engine.max_logit_rows = options_.max_batch;
  engine.prefix_cache = options_.prefix_cache;
  engine.make_constraint = BackgroundConstraintMakerFor(*file);
  engine.allocate_slab = [&](int64_t) -> absl::StatusOr<std::span<std::byte>> {
    BATON_ASSIGN_OR_RETURN(
        handoff_, kv_transfer::HandoffService::Create(handoff, options_.name,
                                                      [this](kv_transfer::HandoffEvent event) {
                                                        inputs_.PushHandoff(std::move(event));
                                                      }));
    return handoff_->slab();
  };
  BATON_ASSIGN_OR_RETURN(engine_, engine::LocalEngine::Load(*file, engine));

  engine::Executor& executor = engine_->executor();
  executor.pool().NoteIn(&journal_);
  if (options_.prefix_cache) info_.cache_chain = executor.ChainName();
  const engine::ModelConfig& loaded = engine_->model().config();
  info_.name = options_.name;
  info_.model = options_.served_model.empty() ? loaded.name : options_.served_model;
  info_.fingerprint = fmt::format("{} order={}", fingerprint, kernels::kKvByteOrder);
  info_.kv_layout = size.layout.ToString();
  info_.vocab_size = loaded.vocab;
  info_.context_tokens = loaded.context;
  info_.block_tokens = size.layout.block_tokens;
  info_.handoff_address = handoff_->address();
  info_.incarnation = RandomU64();
  info_.max_sequences = options_.max_batch;
  info_.kv_bytes_per_token = size.layout.block_bytes() / size.layout.block_tokens;
  LogInfo(fmt::format("model {}, {} weight bytes, {}, {} KV blocks of {} tokens ({} bytes)",
                      info_.model, engine_->model().weight_bytes(), engine_->ops().Describe(),
                      size.block_count, size.layout.block_tokens,
                      size.block_count * size.layout.block_bytes()));
  return absl::OkStatus();
}

absl::Status WorkerHost::Serve(worker_link::Role role) {
  info_.role = role;
  duty_.role = role;
  BATON_ASSIGN_OR_RETURN(server_, worker_link::LinkServer::Create(
                                      options_.listen_address, info_,
                                      [this](worker_link::LinkInput input) {
                                        return inputs_.PushLink(std::move(input));
                                      },
                                      options_.link_tls, &journal_));
  return absl::OkStatus();
}

}  // namespace baton::worker_common
