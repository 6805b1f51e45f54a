// `baton up`: a whole cluster on this machine.
//
// Router and workers are processes of their own, children of this one; with --transport inproc all
// of them live in this process, which is what KV moves in-process need.

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/command_line.h"
#include "cli/log_flags.h"
#include "cli/router_flags.h"
#include "cli/signals.h"
#include "cli/subprocess.h"
#include "cli/worker_flags.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/ops.h"
#include "router/replicas_file.h"
#include "router/workers_file.h"

namespace baton::cli {
namespace {

constexpr Duration kStartTimeout = std::chrono::minutes(15);  // a large model from a slow disk
constexpr Duration kPollInterval = std::chrono::milliseconds(200);

struct UpFlags {
  RouterFlags router;
  WorkerFlags worker;
  LogFlags log;
  int32_t prefill = 1;
  int32_t decode = 1;
  bool one_gpu = false;
};

struct PlannedWorker {
  std::string role, name;
  int32_t gpu = 0;
};

std::vector<PlannedWorker> PlanWorkers(const UpFlags& flags) {
  std::vector<PlannedWorker> workers;
  const int32_t step = flags.one_gpu ? 0 : 1;
  for (int32_t i = 0; i < flags.prefill; ++i)
    workers.push_back({"prefill", fmt::format("prefill-{}", i), flags.worker.gpu + step * i});
  for (int32_t i = 0; i < flags.decode; ++i)
    workers.push_back(
        {"decode", fmt::format("decode-{}", i), flags.worker.gpu + step * (flags.prefill + i)});
  return workers;
}

// Without --threads the workers share the CPUs evenly. Only prefill workers keep KV on disk. NCCL
// wants a GPU for each.
WorkerFlags FlagsFor(const PlannedWorker& planned, const UpFlags& flags) {
  WorkerFlags worker = flags.worker;
  worker.gpu = planned.gpu;
  if (planned.role != "prefill") worker.kv_disk.clear();
  if (worker.engine.threads == 0) {
    worker.engine.threads = std::max(1, kernels::UsableCpus() / (flags.prefill + flags.decode));
  }
  worker.served_model_name = flags.router.model_name;
  return worker;
}

router::DispatcherOptions DispatcherFor(const UpFlags& flags, std::vector<std::string> addresses) {
  router::DispatcherOptions options;
  options.model_path = flags.worker.engine.model;
  options.workers = std::move(addresses);
  return options;
}

void PrintReady(const std::string& addresses, size_t workers) {
  fmt::print("ready {} workers={}\n", addresses, workers);
  std::fflush(stdout);
}

absl::Status RunInThisProcess(const UpFlags& flags) {
  std::vector<std::unique_ptr<WorkerNode>> workers;
  std::vector<std::string> addresses;
  for (const PlannedWorker& planned : PlanWorkers(flags)) {
    BATON_ASSIGN_OR_RETURN(
        workers.emplace_back(),
        WorkerNode::Start(planned.role, planned.name, "127.0.0.1:0", FlagsFor(planned, flags)));
    addresses.push_back(workers.back()->address());
  }
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<RouterNode> router,
                         RouterNode::Start(flags.router, DispatcherFor(flags, addresses)));
  PrintReady(router->Addresses(), workers.size());
  WaitForSignal();
  router->Drain();
  for (const auto& worker : workers) worker->Drain();
  return absl::OkStatus();
}

// A child process with its name, and the rest of its "ready ..." line once it is there.
struct Child {
  std::string name;
  Subprocess process;
  std::string role = {}, address = {};  // of a worker
  bool leaving = false;                 // it was told to end
};

class ProcessCluster {
 public:
  explicit ProcessCluster(const UpFlags& flags)
      : flags_(flags), counts_{flags.prefill, flags.decode} {}
  ~ProcessCluster() {
    Stop();
    std::error_code ignored;
    if (!scale_dir_.empty()) std::filesystem::remove_all(scale_dir_, ignored);
  }

  absl::Status Start() {
    for (const PlannedWorker& planned : PlanWorkers(flags_)) {
      BATON_RETURN_IF_ERROR(SpawnWorker(planned));
    }
    for (Child& worker : children_) BATON_RETURN_IF_ERROR(AwaitWorker(&worker));
    const size_t workers = children_.size();
    RouterFlags router = flags_.router;
    std::string source;
    if (router.control.scales() && router.control.scale == "none") {
      BATON_RETURN_IF_ERROR(PrepareScaling(&router.control));
      source = "--workers-file=" + WorkersFile();
    } else {
      source = fmt::format("--workers={}", fmt::join(Addresses(), ","));
    }
    BATON_RETURN_IF_ERROR(Spawn("router",
                                {"router", "--model=" + flags_.worker.engine.model, source},
                                ToArguments(router)));
    BATON_ASSIGN_OR_RETURN(const std::string ready, WaitReady(&children_.back()));
    PrintReady(ready, workers);
    return absl::OkStatus();
  }

  // Until a signal comes, or the router ends by itself. A lost worker is told, and the rest goes
  // on.
  absl::Status Serve() {
    while (!WaitForSignal(kPollInterval)) {
      for (auto child = children_.begin(); child != children_.end();) {
        if (!child->process.Poll()) {
          ++child;
          continue;
        }
        const std::string text = fmt::format("{} ended by itself with exit code {}", child->name,
                                             child->process.exit_code());
        if (child->name == "router") return absl::UnavailableError(text);
        if (child->leaving) {
          LogInfo(fmt::format("{} has ended", child->name));
        } else {
          LogError(text);
        }
        child = children_.erase(child);
      }
      BATON_RETURN_IF_ERROR(Scale());
    }
    return absl::OkStatus();
  }

  // The router first, so that running requests still have their workers; then the workers.
  void Stop() {
    const Duration patience =
        std::chrono::seconds(flags_.router.drain_delay_s + flags_.router.drain_timeout_s + 10);
    for (const bool router : {true, false}) {
      for (Child& child : children_) {
        if ((child.name == "router") == router) child.process.Signal(SIGTERM);
      }
      for (Child& child : children_) {
        if ((child.name == "router") == router && !child.process.WaitFor(patience)) {
          LogError(fmt::format("{} does not end and is killed", child.name));
        }
      }
    }
    children_.clear();
  }

 private:
  std::string WorkersFile() const { return scale_dir_ + "/workers"; }
  std::string ReplicasFile() const { return scale_dir_ + "/replicas"; }

  absl::Status SpawnWorker(const PlannedWorker& planned) {
    BATON_RETURN_IF_ERROR(Spawn(planned.name,
                                {"worker", "--role=" + planned.role, "--name=" + planned.name},
                                ToArguments(FlagsFor(planned, flags_))));
    children_.back().role = planned.role;
    return absl::OkStatus();
  }

  absl::Status AwaitWorker(Child* worker) {
    BATON_ASSIGN_OR_RETURN(const std::string ready, WaitReady(worker));
    const size_t begin = ready.find("listen=") + 7;
    worker->address = ready.substr(begin, ready.find(' ', begin) - begin);
    return absl::OkStatus();
  }

  std::vector<std::string> Addresses() const {
    std::vector<std::string> addresses;
    for (const Child& child : children_) {
      if (!child.address.empty() && !child.leaving) addresses.push_back(child.address);
    }
    return addresses;
  }

  // Live control writes how many workers there shall be; this process starts and stops them.
  absl::Status PrepareScaling(ControlFlags* control) {
    std::string name = (std::filesystem::temp_directory_path() / "baton-up-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      return absl::UnavailableError(fmt::format("cannot make the directory {}", name));
    }
    scale_dir_ = name;
    control->scale = "file";
    control->replicas_file = ReplicasFile();
    BATON_RETURN_IF_ERROR(router::WriteReplicas(ReplicasFile(), counts_));
    return WriteWorkers();
  }

  absl::Status WriteWorkers() const { return router::WriteWorkersFile(WorkersFile(), Addresses()); }

  absl::Status Scale() {
    if (scale_dir_.empty()) return absl::OkStatus();
    BATON_ASSIGN_OR_RETURN(const router::ReplicaCounts wanted,
                           router::ReadReplicas(ReplicasFile()));
    BATON_RETURN_IF_ERROR(ScaleRole("prefill", wanted.prefill, &counts_.prefill));
    return ScaleRole("decode", wanted.decode, &counts_.decode);
  }

  // The newest of a role goes first. One that cannot start is told, and no other tried until asked.
  absl::Status ScaleRole(const std::string& role, int64_t wanted, int64_t* count) {
    for (; *count < wanted; ++*count) {
      const std::string name = fmt::format("{}-{}", role, started_++);
      BATON_RETURN_IF_ERROR(SpawnWorker({role, name, flags_.worker.gpu + started_ - 1}));
      if (const absl::Status ready = AwaitWorker(&children_.back()); !ready.ok()) {
        LogError(std::string(ready.message()));
      }
      BATON_RETURN_IF_ERROR(WriteWorkers());
    }
    for (; *count > wanted; --*count) {
      const auto newest =
          std::find_if(children_.rbegin(), children_.rend(),
                       [&](const Child& child) { return child.role == role && !child.leaving; });
      if (newest == children_.rend()) continue;
      LogInfo(fmt::format("{} is stopped", newest->name));
      newest->leaving = true;
      BATON_RETURN_IF_ERROR(WriteWorkers());
      newest->process.Signal(SIGTERM);  // it drains
    }
    return absl::OkStatus();
  }

  absl::Status Spawn(const std::string& name, std::vector<std::string> command,
                     const std::vector<std::string>& arguments) {
    std::error_code error;
    const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
    if (error) return absl::InternalError("cannot tell the path of this program");
    command.insert(command.begin(), self);
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.push_back("--log-level=" + flags_.log.level);
    BATON_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(command, /*capture_stdout=*/true));
    LogInfo(fmt::format("started {} as process {}", name, process.pid()));
    children_.push_back({name, std::move(process)});
    return absl::OkStatus();
  }

  // The text after "ready ". A signal while waiting ends the wait.
  absl::StatusOr<std::string> WaitReady(Child* child) {
    const TimePoint deadline = SystemClock().Now() + kStartTimeout;
    while (SystemClock().Now() < deadline) {
      if (WaitForSignal(Duration::zero())) return absl::CancelledError("stopped while starting");
      const absl::StatusOr<std::string> line = child->process.ReadLine(kPollInterval);
      if (line.ok() && line->starts_with("ready ")) return line->substr(6);
      if (line.ok() || line.status().code() == absl::StatusCode::kDeadlineExceeded) continue;
      child->process.WaitFor(std::chrono::seconds(5));
      return absl::UnavailableError(
          fmt::format("{} did not start (exit code {}); its error is above", child->name,
                      child->process.exit_code()));
    }
    return absl::DeadlineExceededError(
        fmt::format("{} was not ready after {:.0f} s", child->name, Seconds(kStartTimeout)));
  }

  const UpFlags& flags_;
  std::vector<Child> children_;
  router::ReplicaCounts counts_;  // of each role, started and not stopped
  std::string scale_dir_;         // "": the number of workers stays
  int32_t started_ = flags_.prefill + flags_.decode;
};

absl::Status RunCluster(const UpFlags& flags) {
  BlockSignals();
  BATON_RETURN_IF_ERROR(StartLogging("up", flags.log));
  if (flags.worker.engine.pin_threads && flags.prefill + flags.decode > 1) {
    return absl::InvalidArgumentError(fmt::format(
        "--pin-threads would put {} workers on the same CPUs; start them with 'baton worker', each "
        "under a CPU mask of its own",
        flags.prefill + flags.decode));
  }
  if (flags.prefill == 0 && !flags.worker.kv_disk.empty()) {
    return absl::InvalidArgumentError("--kv-disk is of prefill workers, but --prefill is 0");
  }
  if (flags.worker.transport == "inproc") {
    if (flags.router.control.scales()) {
      return absl::InvalidArgumentError(
          "workers of --transport inproc live in this process: live control can start and stop "
          "none");
    }
    return RunInThisProcess(flags);
  }
  ProcessCluster cluster(flags);
  BATON_RETURN_IF_ERROR(cluster.Start());
  return cluster.Serve();
}

}  // namespace

Action AddUp(CLI::App* app) {
  auto flags = std::make_shared<UpFlags>();
  app->add_option("--prefill", flags->prefill, "prefill workers")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app->add_option("--decode", flags->decode, "decode workers")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app->add_flag("--one-gpu", flags->one_gpu,
                "with --device cuda: all workers share the GPU of --gpu, instead of one each");
  AddRouterFlags(app, &flags->router);
  AddWorkerFlags(app, &flags->worker);
  AddLogFlags(app, &flags->log);
  return [flags] { return RunCluster(*flags); };
}

}  // namespace baton::cli
