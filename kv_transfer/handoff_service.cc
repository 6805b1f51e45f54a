// HandoffService over a Transport: the thread, and the way from other threads to it.

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/faulty_transport.h"
#include "kv_transfer/handoff.h"
#include "kv_transfer/handoff_loop.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/nccl_transport.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {
namespace {

// While transfers run, the thread polls this long after the last thing it did before it sleeps: a
// reply over shared memory or loopback comes sooner than a wake-up.
constexpr Duration kPollBeforeSleep = std::chrono::microseconds(30);

// For this thread. Signals of the process are for others; SIGPIPE would be for this one, but
// writing to a peer that is gone is an error like any other here.
void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

class Service final : public HandoffService {
 public:
  Service(std::unique_ptr<Transport> transport, const HandoffOptions& options, PeerAddress own,
          std::string encoded_own, std::function<void(HandoffEvent)> on_event)
      : transport_(std::move(transport)),
        options_(options),
        own_(std::move(own)),
        encoded_own_(std::move(encoded_own)),
        on_event_(std::move(on_event)),
        slab_(transport_->slab().first(static_cast<size_t>(own_.slab_bytes()))),
        loop_(*transport_, SystemClock(), options_, own_, encoded_own_,
              [this](HandoffEvent event) { Deliver(std::move(event)); }),
        thread_([this] { Run(); }) {}

  ~Service() override {
    Post([this](HandoffLoop&) { stopping_ = true; });
    thread_.join();
    // It says good-bye to its peers, some of which may be gone.
    std::thread([this] {
      BlockSignals();
      transport_.reset();
    }).join();
  }

  std::span<std::byte> slab() const override { return slab_; }
  std::string address() const override { return encoded_own_; }

  absl::Status Offer(const OfferInfo& offer, std::string target_address,
                     std::vector<int32_t> blocks) override {
    BATON_ASSIGN_OR_RETURN(PeerAddress target, DecodeAddress(target_address));
    BATON_RETURN_IF_ERROR(CheckOffer(offer, target, blocks));
    {
      const std::lock_guard lock(mutex_);
      if (sources_.size() >= options_.max_transfers) {
        return absl::ResourceExhaustedError(
            fmt::format("'{}' takes part in {} transfers as source, the most it may", own_.name,
                        sources_.size()));
      }
      if (!sources_.insert(offer.attempt).second) {
        return absl::AlreadyExistsError(
            fmt::format("attempt {} is being offered", ToString(offer.attempt)));
      }
    }
    Post([offer, target = std::move(target), blocks = std::move(blocks)](HandoffLoop& loop) {
      loop.Offer(offer, target, blocks);
    });
    return absl::OkStatus();
  }

  void BlocksReady(const Attempt& attempt, int32_t count) override {
    Post([=](HandoffLoop& loop) { loop.BlocksReady(attempt, count); });
  }
  void LayersReady(const Attempt& attempt, int32_t count, int32_t layers) override {
    const int32_t slice_layers = options_.layout.layers / loop_.slices();
    if (layers % slice_layers != 0) return;
    Post([=](HandoffLoop& loop) { loop.SlicesReady(attempt, count, layers / slice_layers); });
  }
  void Commit(const Attempt& attempt, std::string payload) override {
    if (payload.size() > kMaxCommitPayloadBytes) {
      CancelSource(attempt, absl::InvalidArgumentError(
                                fmt::format("a commit payload of {} bytes, at most {} are taken",
                                            payload.size(), kMaxCommitPayloadBytes)));
      return;
    }
    Post([attempt, payload = std::move(payload)](HandoffLoop& loop) {
      loop.Commit(attempt, payload);
    });
  }
  void CancelSource(const Attempt& attempt, absl::Status why) override {
    Post([attempt, why = std::move(why)](HandoffLoop& loop) { loop.CancelSource(attempt, why); });
  }
  void Grant(const Attempt& attempt, int32_t first_block_wanted,
             std::vector<int32_t> blocks) override {
    Post([attempt, first_block_wanted, blocks = std::move(blocks)](HandoffLoop& loop) {
      loop.Grant(attempt, first_block_wanted, blocks);
    });
  }
  void Refuse(const Attempt& attempt, absl::Status why) override {
    Post([attempt, why = std::move(why)](HandoffLoop& loop) { loop.Refuse(attempt, why); });
  }
  void CancelTarget(const Attempt& attempt) override {
    Post([attempt](HandoffLoop& loop) { loop.CancelTarget(attempt); });
  }

  size_t active_transfers() const override {
    const std::lock_guard lock(mutex_);
    return sources_.size() + loop_.active_targets();
  }

  std::vector<MeasuredPath> paths() const override { return loop_.paths(); }

 private:
  using Command = std::function<void(HandoffLoop&)>;

  absl::Status CheckOffer(const OfferInfo& offer, const PeerAddress& target,
                          const std::vector<int32_t>& blocks) const {
    BATON_RETURN_IF_ERROR(CheckCompatible(own_, target));
    if (target.incarnation == own_.incarnation) {
      return absl::InvalidArgumentError(fmt::format("'{}' offers blocks to itself", own_.name));
    }
    if (options_.transport == TransportKind::kShm &&
        (!target.slab_file.has_value() || target.slab_file->host != own_.slab_file->host)) {
      return absl::FailedPreconditionError(fmt::format(
          "transport shm: '{}' is not on the machine of '{}'; use transport auto or ucx",
          target.name, own_.name));
    }
    const int32_t needed = options_.layout.BlocksFor(std::max(offer.tokens, 0));
    if (offer.tokens < 1 || needed > kMaxBlocksPerTransfer ||
        blocks.size() != static_cast<size_t>(needed) || offer.block_hashes.size() > blocks.size()) {
      return absl::InvalidArgumentError(fmt::format(
          "an offer of {} tokens with {} blocks and {} hashes; {} blocks are needed, at most {}",
          offer.tokens, blocks.size(), offer.block_hashes.size(), needed, kMaxBlocksPerTransfer));
    }
    for (const int32_t block : blocks) {
      if (block < 0 || block >= options_.block_count) {
        return absl::InvalidArgumentError(
            fmt::format("block {} of a slab of {}", block, options_.block_count));
      }
    }
    return absl::OkStatus();
  }

  void Post(Command command) {
    {
      const std::lock_guard lock(mutex_);
      commands_.push_back(std::move(command));
    }
    transport_->Wake();
  }

  // A source's place is free before its SourceDone is out.
  void Deliver(HandoffEvent event) {
    if (const auto* done = std::get_if<SourceDone>(&event)) {
      const std::lock_guard lock(mutex_);
      sources_.erase(done->attempt);
    }
    on_event_(std::move(event));
  }

  bool RunCommands() {
    std::vector<Command> commands;
    {
      const std::lock_guard lock(mutex_);
      commands.swap(commands_);
    }
    if (commands.empty()) return false;
    loop_.TakeTime();
    for (const Command& command : commands) command(loop_);
    return true;
  }

  void Run() {
    BlockSignals();
    const ScopedLogName log_name(own_.name);
    TimePoint last_busy = SystemClock().Now();
    while (!stopping_) {
      const bool commanded = RunCommands();
      if (loop_.Step() || commanded) {
        last_busy = loop_.now();
      } else if (!loop_.active() || loop_.now() - last_busy > kPollBeforeSleep) {
        transport_->Wait(loop_.IdleTime());
      }
    }
    RunCommands();
    loop_.EndAll();
  }

  std::unique_ptr<Transport> transport_;  // Post wakes it: outlives the thread
  const HandoffOptions options_;
  const PeerAddress own_;
  const std::string encoded_own_;
  const std::function<void(HandoffEvent)> on_event_;
  const std::span<std::byte> slab_;

  mutable std::mutex mutex_;
  std::vector<Command> commands_;         // each belongs to a transfer, which are bounded
  absl::flat_hash_set<Attempt> sources_;  // accepted, without a SourceDone yet
  bool stopping_ = false;                 // the thread's

  HandoffLoop loop_;
  std::thread thread_;
};

absl::Status CheckOptions(const HandoffOptions& options, std::string_view name) {
  const kernels::KvLayout& layout = options.layout;
  if (layout.layers < 1 || layout.kv_heads < 1 || layout.head_dim < 1 || layout.block_tokens < 1 ||
      options.block_count < 1 || options.block_count > INT32_MAX / kMaxSlices) {
    return absl::InvalidArgumentError(
        fmt::format("a handoff of {} blocks of layout {}", options.block_count, layout.ToString()));
  }
  if (options.lease <= Duration{} || options.offer_timeout <= Duration{} ||
      options.ready_timeout <= Duration{}) {
    return absl::InvalidArgumentError("lease, offer_timeout and ready_timeout must be positive");
  }
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "a service name of {} bytes, at most {} are taken", name.size(), kMaxNameBytes));
  }
  return absl::OkStatus();
}

// UCX, and NCCL beside it where that is wanted, or may be and can.
absl::StatusOr<std::unique_ptr<Transport>> CreateBetweenProcesses(const TransportOptions& options) {
  const bool insists = options.kind == TransportKind::kNccl;
  std::unique_ptr<Gpu> gpu;
  if (insists || options.kind == TransportKind::kAuto) {
    absl::StatusOr<std::unique_ptr<Gpu>> opened = OpenGpu(options.gpu);
    if (insists && !opened.ok()) {
      return absl::UnavailableError(fmt::format("transport nccl: {}; auto, shm and ucx do without",
                                                std::string(opened.status().message())));
    }
    if (opened.ok()) {
      gpu = *std::move(opened);
    } else if (!absl::IsUnimplemented(opened.status())) {
      LogInfo(fmt::format("KV does not move by NCCL: {}", opened.status().ToString()));
    }
  }
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Transport> ucx, CreateUcxTransport(options));
  if (gpu == nullptr) return ucx;
  return WithLanes(std::move(ucx), std::move(gpu), options.incarnation);
}

}  // namespace

absl::StatusOr<TransportKind> TransportKindFromName(std::string_view name) {
  if (name == "auto") return TransportKind::kAuto;
  if (name == "shm") return TransportKind::kShm;
  if (name == "ucx") return TransportKind::kUcx;
  if (name == "nccl") return TransportKind::kNccl;
  if (name == "inproc") return TransportKind::kInproc;
  return absl::InvalidArgumentError(
      fmt::format("no transport '{}'; there are auto, shm, ucx, nccl and inproc", name));
}

int32_t SlicesOf(const kernels::KvLayout& layout, int64_t least_slice_bytes) {
  int32_t slices = kMaxSlices;
  while (slices > 1 &&
         (layout.layers % slices != 0 || layout.block_bytes() / slices < least_slice_bytes)) {
    --slices;
  }
  return slices;
}

absl::StatusOr<std::unique_ptr<HandoffService>> CreateHandoffOver(
    std::unique_ptr<Transport> transport, uint64_t incarnation, const HandoffOptions& options,
    std::string name, std::function<void(HandoffEvent)> on_event) {
  BATON_RETURN_IF_ERROR(CheckOptions(options, name));
  PeerAddress own{.incarnation = incarnation,
                  .name = std::move(name),
                  .family = "",
                  .endpoint = "",
                  .layout = options.layout.ToString(),
                  .model_fingerprint = options.model_fingerprint,
                  .block_count = options.block_count,
                  .block_bytes = options.layout.block_bytes(),
                  .slab_file = std::nullopt};
  transport->Describe(own);
  BATON_ASSIGN_OR_RETURN(std::string encoded, EncodeAddress(own));
  return std::make_unique<Service>(std::move(transport), options, std::move(own),
                                   std::move(encoded), std::move(on_event));
}

absl::StatusOr<std::unique_ptr<HandoffService>> HandoffService::Create(
    const HandoffOptions& options, std::string name, std::function<void(HandoffEvent)> on_event) {
  BATON_RETURN_IF_ERROR(CheckOptions(options, name));
  const TransportOptions transport_options{
      .kind = options.transport,
      .incarnation = RandomU64(),
      .slab_bytes = static_cast<size_t>(options.block_count) *
                    static_cast<size_t>(options.layout.block_bytes()),
      .ucx_tls = options.ucx_tls,
      .gpu = options.gpu};
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport,
                         options.transport == TransportKind::kInproc
                             ? CreateInprocTransport(transport_options)
                             : CreateBetweenProcesses(transport_options));
  if (options.faults) transport = WithFaults(std::move(transport), RandomFaults(*options.faults));
  return CreateHandoffOver(std::move(transport), transport_options.incarnation, options,
                           std::move(name), std::move(on_event));
}

}  // namespace baton::kv_transfer
