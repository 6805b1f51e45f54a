#pragma once

// What the handoff tests share: a service with its events in a box that can be waited for, and KV
// blocks with recognisable contents.

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/status_macros.h"
#include "kv_transfer/faulty_transport.h"
#include "kv_transfer/handoff.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/nccl_transport.h"
#include "kv_transfer/transport.h"
#include "tests/kv_transfer/memory_gpu.h"

namespace baton::kv_transfer {

// Generous: nothing is expected to take this long.
inline constexpr Duration kPatience = std::chrono::seconds(60);

// What this test program runs the tests over: each program has its own.
struct TestedTransport {
  std::string name;
  TransportKind kind;
  std::string moved_by;      // as in TransferStats::transport
  bool inproc_pull = false;  // the in-process transport, without mapping
  std::string ucx_tls = "";
  bool memory_gpus = false;  // lanes between GPUs in memory

  friend void PrintTo(const TestedTransport& transport, std::ostream* out) {
    *out << transport.name;
  }
};
std::vector<TestedTransport> TestedTransports();

class EventBox {
 public:
  void Put(HandoffEvent event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    changed_.notify_all();
  }
  // Takes out the first T of the attempt; empty when none comes in time.
  template <typename T>
  std::optional<T> Take(const Attempt& attempt, Duration patience = kPatience) {
    std::unique_lock lock(mutex_);
    std::optional<T> found;
    changed_.wait_for(lock, patience, [&] {
      for (auto it = events_.begin(); it != events_.end(); ++it) {
        if (T* const event = std::get_if<T>(&*it); event != nullptr && AttemptOf(*it) == attempt) {
          found = std::move(*event);
          events_.erase(it);
          return true;
        }
      }
      return false;
    });
    return found;
  }
  size_t size() {
    const std::lock_guard lock(mutex_);
    return events_.size();
  }

 private:
  static Attempt AttemptOf(const HandoffEvent& event) {
    if (const auto* arrived = std::get_if<OfferArrived>(&event)) return arrived->offer.attempt;
    if (const auto* done = std::get_if<TargetDone>(&event)) return done->attempt;
    return std::get<SourceDone>(event).attempt;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<HandoffEvent> events_;
};

// 2 layers x 2 heads x 64 x 16 tokens in half precision: 16 KiB a block, in two slices.
inline HandoffOptions SmallOptions(TransportKind kind) {
  HandoffOptions options;
  options.transport = kind;
  options.layout = {.layers = 2,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .block_tokens = 16,
                    .dtype = kernels::KvDType::kF16};
  options.model_fingerprint = "a test's model";
  options.least_slice_bytes = 8 << 10;
  options.block_count = 256;
  return options;
}

// With short bounds, for services that lose messages. What may not be mapped is pulled where the
// kind is kAuto.
inline HandoffOptions HastyOptions(bool pulled) {
  HandoffOptions options = SmallOptions(pulled ? TransportKind::kAuto : TransportKind::kInproc);
  options.lease = options.ready_timeout = options.offer_timeout = std::chrono::milliseconds(150);
  return options;
}

inline Attempt MakeAttempt(uint64_t number, uint32_t epoch = 1) {
  return {.request = {.high = 0xBA70, .low = number}, .epoch = epoch};
}

// A handoff service and its events.
struct Worker {
  EventBox events;
  std::unique_ptr<HandoffService> service;
  HandoffOptions options;

  std::span<std::byte> Block(int32_t block) const {
    const auto bytes = static_cast<size_t>(options.layout.block_bytes());
    return service->slab().subspan(static_cast<size_t>(block) * bytes, bytes);
  }
  // Contents that differ with every (seed, index).
  void Fill(int32_t block, uint64_t seed, int32_t index) const {
    std::mt19937_64 random(seed * 1'000'003 + static_cast<uint64_t>(index));
    const std::span<std::byte> bytes = Block(block);
    for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
      const uint64_t value = random();
      std::memcpy(bytes.data() + at, &value, sizeof value);
    }
  }
  void FillAll(const std::vector<int32_t>& blocks, uint64_t seed) const {
    for (size_t i = 0; i < blocks.size(); ++i) {
      Fill(blocks[i], seed, static_cast<int32_t>(i));
    }
  }
  // Whether the block holds what Fill(_, seed, index) writes.
  bool Holds(int32_t block, uint64_t seed, int32_t index) const {
    std::mt19937_64 random(seed * 1'000'003 + static_cast<uint64_t>(index));
    const std::span<std::byte> bytes = Block(block);
    for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
      const uint64_t value = random();
      if (std::memcmp(bytes.data() + at, &value, sizeof value) != 0) return false;
    }
    return true;
  }
};

inline std::unique_ptr<Worker> AdoptWorker(
    const HandoffOptions& options,
    const std::function<absl::StatusOr<std::unique_ptr<HandoffService>>(
        std::function<void(HandoffEvent)>)>& create) {
  auto worker = std::make_unique<Worker>();
  worker->options = options;
  Worker* const raw = worker.get();
  auto service = create([raw](HandoffEvent event) { raw->events.Put(std::move(event)); });
  BATON_CHECK(service.ok(), service.status().ToString());
  worker->service = *std::move(service);
  return worker;
}

inline std::unique_ptr<Worker> StartWorker(const HandoffOptions& options, const std::string& name) {
  return AdoptWorker(options, [&](std::function<void(HandoffEvent)> on_event) {
    return HandoffService::Create(options, name, std::move(on_event));
  });
}

// Faults in every message that is sent: `on_message` may change it, and says how many copies go
// out.
inline Faults FaultsOf(std::function<int(std::string&)> on_message, bool refuse_mapping = false) {
  Faults faults;
  faults.on_send = [on_message = std::move(on_message)](PeerId, std::string& message,
                                                        std::vector<std::string>&) -> Fate {
    return on_message(message);
  };
  faults.refuse_mapping = refuse_mapping;
  return faults;
}

// The index in MessageBody of the message in these bytes.
inline size_t TypeOf(const std::string& message) {
  return Decode(std::as_bytes(std::span(message.data(), message.size())))->body.index();
}

// Over what `wrap` makes of the in-process transport of this incarnation.
inline std::unique_ptr<Worker> StartWrappedWorker(
    const HandoffOptions& options, const std::string& name,
    const std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>, uint64_t)>& wrap) {
  return AdoptWorker(
      options,
      [&](std::function<void(HandoffEvent)> on_event)
          -> absl::StatusOr<std::unique_ptr<HandoffService>> {
        const TransportOptions transport_options{
            .kind = TransportKind::kInproc,
            .incarnation = RandomU64(),
            .slab_bytes = static_cast<size_t>(options.block_count * options.layout.block_bytes()),
            .ucx_tls = ""};
        BATON_ASSIGN_OR_RETURN(auto inner, CreateInprocTransport(transport_options));
        return CreateHandoffOver(wrap(std::move(inner), transport_options.incarnation),
                                 transport_options.incarnation, options, name, std::move(on_event));
      });
}

// Over the in-process transport, which suffers `faults`.
inline std::unique_ptr<Worker> StartFaultyWorker(const HandoffOptions& options,
                                                 const std::string& name, Faults faults) {
  return StartWrappedWorker(options, name, [&](std::unique_ptr<Transport> inner, uint64_t) {
    return WithFaults(std::move(inner), std::move(faults));
  });
}

// Over the in-process transport and lanes between GPUs in memory, of which it has the one with this
// number. `faults` outlives the worker.
inline std::unique_ptr<Worker> StartLaneWorker(const HandoffOptions& options,
                                               const std::string& name, int32_t gpu,
                                               MemoryFaults& faults, const LaneTimes& times = {},
                                               bool refuse_mapping = false) {
  return StartWrappedWorker(
      options, name, [&](std::unique_ptr<Transport> inner, uint64_t incarnation) {
        auto lanes = WithLanes(std::move(inner), std::make_unique<MemoryGpu>(gpu, faults),
                               incarnation, times);
        return WithFaults(std::move(lanes), {.refuse_mapping = refuse_mapping});
      });
}

inline std::unique_ptr<Worker> StartTested(const TestedTransport& tested,
                                           const HandoffOptions& options, const std::string& name) {
  if (tested.memory_gpus) {
    static std::atomic<int32_t> gpus = 0;
    static MemoryFaults none;
    return StartLaneWorker(options, name, gpus++, none);
  }
  if (!tested.inproc_pull) return StartWorker(options, name);
  return StartFaultyWorker(options, name, {.refuse_mapping = true});
}

// `count` different blocks of `block_count`, in random order.
inline std::vector<int32_t> RandomBlocks(int32_t block_count, int32_t count,
                                         std::mt19937_64& random) {
  std::vector<int32_t> blocks(static_cast<size_t>(block_count));
  for (int32_t i = 0; i < block_count; ++i) blocks[static_cast<size_t>(i)] = i;
  std::shuffle(blocks.begin(), blocks.end(), random);
  blocks.resize(static_cast<size_t>(count));
  return blocks;
}

// Of a prompt that no other attempt has.
inline OfferInfo MakeOffer(const HandoffOptions& options, const Attempt& attempt, int32_t blocks) {
  const std::vector<TokenId> full_blocks(
      static_cast<size_t>((blocks - 1) * options.layout.block_tokens));
  return {.attempt = attempt,
          .tokens = blocks * options.layout.block_tokens - 3,
          .block_hashes = ChainFullBlocks(ChainRoot(ToString(attempt), ""), full_blocks,
                                          options.layout.block_tokens),
          .source_name = "prefill-0"};
}

}  // namespace baton::kv_transfer
