#include "cli/worker_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <thread>

#include "common/status_macros.h"
#include "decode_worker/worker.h"
#include "prefill_worker/worker.h"
#include "worker_common/options.h"

namespace baton::cli {
namespace {

// Shorter than the first, a busy machine alone would end transfers.
constexpr double kLeastHandoffTimeS = 0.1;
constexpr double kMostHandoffTimeS = 3600;

// A worker of either kind and the thread that is its device thread.
template <typename Worker>
class ThreadedWorker final : public WorkerNode {
 public:
  explicit ThreadedWorker(std::unique_ptr<Worker> worker)
      : worker_(std::move(worker)), thread_([this] { worker_->Run(); }) {}
  ~ThreadedWorker() override { Drain(); }

  std::string address() const override { return worker_->address(); }
  void Drain() override {
    worker_->Drain();
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

template <typename Worker>
absl::StatusOr<std::unique_ptr<WorkerNode>> StartAs(const worker_common::WorkerOptions& options) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker, Worker::Create(options));
  return std::make_unique<ThreadedWorker<Worker>>(std::move(worker));
}

Duration FromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

absl::StatusOr<worker_common::WorkerOptions> OptionsOf(const WorkerFlags& flags) {
  worker_common::WorkerOptions options;
  const EngineFlags& engine = flags.engine;
  options.model_path = engine.model;
  options.served_model = flags.served_model_name;
  options.link_tls = flags.link_tls;
  options.threads = engine.threads;
  options.pin_threads = engine.pin_threads;
  BATON_ASSIGN_OR_RETURN(options.isa, kernels::CpuIsaFromName(engine.isa));
  BATON_ASSIGN_OR_RETURN(options.kv_dtype, KvDTypeOf(engine));
  options.max_context = engine.max_context;
  options.block_tokens = engine.block_tokens;
  options.chunk_tokens = engine.chunk_tokens;
  options.kv_bytes = engine.kv_mb << 20;
  options.prefix_cache = engine.prefix_cache;
  options.disk_directory = flags.kv_disk;
  options.disk_bytes = static_cast<int64_t>(flags.kv_disk_gb * (int64_t{1} << 30));
  options.max_batch = flags.max_sequences;
  options.queue_capacity = static_cast<size_t>(flags.queue_capacity);
  BATON_ASSIGN_OR_RETURN(options.transport, kv_transfer::TransportKindFromName(flags.transport));
  options.ucx_tls = flags.ucx_tls;
  options.gpu = flags.gpu;
  if (!flags.transport_faults.empty()) {
    BATON_ASSIGN_OR_RETURN(options.transport_faults,
                           kv_transfer::TransportFaultsFromText(flags.transport_faults));
  }
  options.lease = FromSeconds(flags.kv_lease_s);
  options.offer_timeout = FromSeconds(flags.kv_offer_timeout_s);
  options.ready_timeout = FromSeconds(flags.kv_ready_timeout_s);
  options.offer_wait = FromSeconds(flags.kv_offer_wait_s);
  return options;
}

void AddHandoffTimes(CLI::App* app, WorkerFlags* flags) {
  const auto add = [app](const char* name, double* seconds, const char* description) {
    app->add_option(name, *seconds, description)
        ->check(CLI::Range(kLeastHandoffTimeS, kMostHandoffTimeS))
        ->capture_default_str();
  };
  add("--kv-lease", &flags->kv_lease_s,
      "a handoff's source frees its blocks this long after the target's last sign of life, "
      "seconds");
  add("--kv-offer-timeout", &flags->kv_offer_timeout_s,
      "longest wait of a handoff's source for blocks at its target, seconds");
  add("--kv-ready-timeout", &flags->kv_ready_timeout_s,
      "longest silence of a handoff's source before its target gives up, seconds");
  add("--kv-offer-wait", &flags->kv_offer_wait_s,
      "a decode worker without an offer for this long prefills the prompt itself, seconds");
}

}  // namespace

void AddWorkerFlags(CLI::App* app, WorkerFlags* flags) {
  AddEngineFlags(app, &flags->engine, "1 GiB, or one full context where that is more");
  app->add_option("--transport", flags->transport,
                  "how KV moves: auto, shm (mapped memory), ucx (active messages), nccl (from GPU "
                  "to GPU), inproc")
      ->capture_default_str();
  app->add_option("--ucx-tls", flags->ucx_tls,
                  "UCX transports to use, as UCX_TLS; by --transport if empty");
  app->add_option(
         "--gpu", flags->gpu,
         "for NCCL: the GPU, as CUDA counts; of a whole cluster ('up') the first worker's, "
         "the others have those after it")
      ->check(CLI::Range(0, 1'023))
      ->capture_default_str();
  app->add_option("--max-sequences", flags->max_sequences, "most sequences of one step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--queue-capacity", flags->queue_capacity,
                  "most requests on a worker; refused above")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--kv-disk", flags->kv_disk,
                  "directory in which a prefill worker keeps KV in a file, NAME.kvcache, also over "
                  "restarts; none if empty");
  app->add_option("--kv-disk-gb", flags->kv_disk_gb,
                  "size of that file in GiB, taken at the start; each prefill worker's own")
      ->check(CLI::Range(0.001, 1048576.0))
      ->capture_default_str();
  AddHandoffTimes(app, flags);
  // Group "": not in --help.
  app->add_option("--transport-faults", flags->transport_faults,
                  "KEY=VALUE,...: faults at random on KV transfers, for tests")
      ->group("");
}

std::vector<std::string> ToArguments(const WorkerFlags& flags) {
  std::vector<std::string> arguments = ToArguments(flags.engine);
  arguments.push_back("--transport=" + flags.transport);
  arguments.push_back(fmt::format("--gpu={}", flags.gpu));
  arguments.push_back(fmt::format("--max-sequences={}", flags.max_sequences));
  arguments.push_back(fmt::format("--queue-capacity={}", flags.queue_capacity));
  if (!flags.kv_disk.empty()) arguments.push_back("--kv-disk=" + flags.kv_disk);
  arguments.push_back(fmt::format("--kv-disk-gb={}", flags.kv_disk_gb));
  arguments.push_back(fmt::format("--kv-lease={}", flags.kv_lease_s));
  arguments.push_back(fmt::format("--kv-offer-timeout={}", flags.kv_offer_timeout_s));
  arguments.push_back(fmt::format("--kv-ready-timeout={}", flags.kv_ready_timeout_s));
  arguments.push_back(fmt::format("--kv-offer-wait={}", flags.kv_offer_wait_s));
  // CLI11 takes the argument after an empty "--flag=" for its value.
  if (!flags.ucx_tls.empty()) arguments.push_back("--ucx-tls=" + flags.ucx_tls);
  if (!flags.transport_faults.empty()) {
    arguments.push_back("--transport-faults=" + flags.transport_faults);
  }
  if (!flags.served_model_name.empty()) {
    arguments.push_back("--served-model-name=" + flags.served_model_name);
  }
  return arguments;
}

absl::StatusOr<std::unique_ptr<WorkerNode>> WorkerNode::Start(const std::string& role,
                                                              const std::string& name,
                                                              const std::string& listen,
                                                              const WorkerFlags& flags) {
  BATON_ASSIGN_OR_RETURN(worker_common::WorkerOptions options, OptionsOf(flags));
  options.name = name;
  options.listen_address = listen;
  if (role == "prefill") return StartAs<prefill_worker::PrefillWorker>(options);
  return StartAs<decode_worker::DecodeWorker>(options);
}

}  // namespace baton::cli
