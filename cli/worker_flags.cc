#include "cli/worker_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>

#include "cli/etcd_flags.h"
#include "common/host_port.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "decode_worker/worker.h"
#include "prefill_worker/worker.h"
#include "worker_common/host.h"
#include "worker_common/options.h"

namespace baton::cli {
namespace {

// Shorter than the first, a busy machine alone would end transfers.
constexpr double kLeastHandoffTimeS = 0.1;
constexpr double kMostHandoffTimeS = 3600;

using Role = worker_link::Role;
using AnyWorker = std::variant<std::monostate, std::unique_ptr<prefill_worker::PrefillWorker>,
                               std::unique_ptr<decode_worker::DecodeWorker>>;

absl::StatusOr<AnyWorker> MakeWorker(worker_common::WorkerHost* host, Role role) {
  if (role == Role::kDecode) return decode_worker::DecodeWorker::Over(host);
  BATON_ASSIGN_OR_RETURN(auto worker, prefill_worker::PrefillWorker::Over(host));
  return worker;
}

// A host, the worker of its present role over it, and the device thread.
class ThreadedWorker final : public WorkerNode {
 public:
  ThreadedWorker(std::unique_ptr<worker_common::WorkerHost> host, AnyWorker worker,
                 std::unique_ptr<discovery::Registration> registration)
      : host_(std::move(host)), registration_(std::move(registration)), worker_(std::move(worker)) {
    if (registration_ != nullptr) {
      host_->OnStatus([this](const worker_link::WorkerStatus& status) {
        registration_->Update(std::string(RoleName(*status.role)), status.draining);
      });
    }
    thread_ = std::thread([this] { Run(); });
  }
  ~ThreadedWorker() override { Drain(); }

  std::string address() const override { return host_->server().address(); }
  void Drain() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      DrainLocked();
    }
    if (thread_.joinable()) thread_.join();
    registration_.reset();
  }

 private:
  void Run() {
    std::optional<Role> next;
    do {
      next = Call([](auto& worker) { return worker.Run(); });
      if (next) ChangeRole(*next);
    } while (next);
  }

  // Weights, KV pool and prefix cache stay as they are.
  void ChangeRole(Role role) {
    const Role before = role == Role::kPrefill ? Role::kDecode : Role::kPrefill;
    const std::lock_guard lock(mutex_);
    worker_ = std::monostate();  // lets go of the pool first
    absl::StatusOr<AnyWorker> made = MakeWorker(host_.get(), role);
    if (!made.ok()) {
      LogError(fmt::format("cannot become a {} worker: {}", RoleName(role),
                           std::string(made.status().message())));
      host_->duty().role = before;
      made = MakeWorker(host_.get(), before);
      BATON_CHECK(made.ok(), made.status().ToString());
    }
    worker_ = *std::move(made);
    if (ending_) DrainLocked();
    LogInfo(fmt::format("is a {} worker now", RoleName(host_->duty().role)));
  }

  void DrainLocked() {
    Call([](auto& worker) {
      worker.Drain();
      return std::optional<Role>();
    });
  }

  template <typename Function>
  std::optional<Role> Call(const Function& function) {
    return std::visit(
        [&](auto& worker) -> std::optional<Role> {
          if constexpr (std::is_same_v<decltype(worker), std::monostate&>) {
            return std::nullopt;
          } else {
            return function(*worker);
          }
        },
        worker_);
  }

  const std::unique_ptr<worker_common::WorkerHost> host_;
  std::unique_ptr<discovery::Registration> registration_;  // may be null
  std::mutex mutex_;  // guards worker_'s changes, all on thread_, against Drain
  bool ending_ = false;
  AnyWorker worker_;
  std::thread thread_;
};

absl::StatusOr<worker_common::WorkerOptions> OptionsOf(const WorkerFlags& flags) {
  worker_common::WorkerOptions options;
  const EngineFlags& engine = flags.engine;
  options.model_path = engine.model;
  options.served_model = flags.served_model_name;
  options.link_tls = flags.link_tls;
  options.cuda = engine.device == "cuda";
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
  options.drain_grace = FromSeconds(flags.drain_grace_s);
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

// Null where the worker is not to be registered.
absl::StatusOr<std::unique_ptr<discovery::Registration>> Register(const WorkerFlags& flags,
                                                                  worker_common::WorkerHost& host) {
  if (!flags.registration.etcd.on()) return nullptr;
  const std::string listened = host.server().address();
  BATON_ASSIGN_OR_RETURN(const HostPort at, ParseHostPort(listened));
  discovery::RegisteredWorker worker;
  BATON_ASSIGN_OR_RETURN(worker.address, AdvertisedAddress(flags.advertise, at.host, at.port));
  worker.name = host.info().name;
  worker.role = std::string(RoleName(host.info().role));
  worker.model = host.info().model;
  worker.incarnation = fmt::format("{:x}", host.info().incarnation);
  return discovery::Registration::Start(flags.registration, std::move(worker));
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
         "for NCCL and --device cuda: the GPU, as CUDA counts; of a whole cluster ('up') the first "
         "worker's, the others have those after it")
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
  app->add_option(
         "--drain-grace", flags->drain_grace_s,
         "a worker that ends lets its streams go on for so long before routers move them to "
         "others, seconds")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
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
  arguments.push_back(fmt::format("--drain-grace={}", flags.drain_grace_s));
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
  const Role first = role == "prefill" ? Role::kPrefill : Role::kDecode;
  BATON_ASSIGN_OR_RETURN(auto host, worker_common::WorkerHost::Create(options, first));
  BATON_ASSIGN_OR_RETURN(AnyWorker worker, MakeWorker(host.get(), first));
  BATON_ASSIGN_OR_RETURN(auto registration, Register(flags, *host));
  return std::make_unique<ThreadedWorker>(std::move(host), std::move(worker),
                                          std::move(registration));
}

}  // namespace baton::cli
