#pragma once

// The workers that this router knows: a link to each, what each last said, and what this router has
// open there.

#include <climits>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "router/circuit.h"
#include "router/dispatcher.h"
#include "router/duty.h"
#include "router/placement.h"
#include "router/prefix_index.h"
#include "router/prompts_under_way.h"
#include "router/session_memory.h"
#include "router/step_pace.h"
#include "router/worker_sources.h"
#include "worker_link/client.h"

namespace baton::router {

struct RegistryOptions : WorkerSourcesOptions {
  std::string router_name;
  worker_link::ClientSecurity security;
  bool only_safe = false;  // without TLS, addresses other than loopback are not dialled
  // A worker that says nothing for so long, and three times its longest step, is silent: workers
  // report once a second, between steps.
  Duration stall_timeout = std::chrono::seconds(5);
  int32_t vocab_size = 0;  // workers with a smaller vocabulary are refused
  // Of the index of what workers hold; 0: they are not asked.
  size_t prefix_index_entries = PrefixIndex::kDefaultEntries;
};

// Called on the links' threads, for one worker one call at a time, in order; no registry lock is
// held. They must not block.
struct RegistryEvents {
  std::function<void()> on_usable;  // a worker became usable: what waits may be placed
  std::function<void(WorkerId, const absl::Status& why)> on_lost;
  std::function<void(WorkerId, std::vector<worker_link::Event>)> on_events;
  // On the thread of CheckSilence. A decode worker is told of only while there is another.
  std::function<void(WorkerId, const absl::Status& why)> on_stalled;
  // Its streams should move, and there is another worker of its role. Told again while it is so.
  std::function<void(WorkerId)> on_leaving;
};

// What a request holds open at one worker. A share of an older connection is void.
struct Share {
  WorkerId worker = 0;
  uint64_t connection = 0;
  int64_t prompt_tokens = 0;  // to be prefilled there
  int64_t blocks = 0;
  std::vector<uint64_t> under_way;  // keys of the prompt, at a prefill worker
};

// What placement may know a prompt by.
struct PromptNames {
  std::span<const TokenId> tokens;
  std::string_view cache_salt;
  std::span<const uint64_t> keys;   // PrefixKeys of it
  std::optional<uint64_t> session;  // SessionKey of it
};

// Thread-safe. Nothing blocks on workers. Workers may start before or after the router and come and
// go; an address that leaves its source gets no new work (one of etcd or DNS: when its link is
// lost, too), and is dropped when nothing is open there.
class Registry {
 public:
  static constexpr size_t kMaxWorkers = 10000;
  static constexpr size_t kRememberedSessions = 65536;
  static constexpr size_t kMaxChainKinds = 4;  // of the fleet; prefixes of more are not looked for
  static constexpr Duration kSuspectsLast = std::chrono::milliseconds(20);

  // As WorkerSources::Create, with kMaxWorkers.
  static absl::StatusOr<std::unique_ptr<Registry>> Create(const RegistryOptions& options,
                                                          RegistryEvents events);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  struct Assignment {
    Share decode;
    std::string decode_name;
    struct Prefill {
      Share share;
      std::string name;
      std::string target_address;  // the decode worker's handoff address
      std::string own_address;     // and its own
    };
    std::optional<Prefill> prefill;
    struct Donor {
      PrefixDonor prefix;
      std::string name;
    };
    std::optional<Donor> donor;  // to the prefill worker
  };
  // Placement on the fleet of now, with its load accounted at once, so that the next request sees
  // it. What is known of the prompt's prefix and session is filled in. Every share is given back
  // with Release exactly once.
  std::variant<Assignment, Refusal> Assign(PlacementRequest request, const PromptNames& prompt);
  void Release(const Share& share);
  // Whether a decode worker other than this one could take the prompt now.
  bool HasPlaceBeside(WorkerId worker, int32_t prompt_tokens) const;

  // False when the worker is not connected or does not read: nothing was sent.
  bool Send(WorkerId worker, worker_link::Command command);
  absl::Status SetDuty(const DutyChange& change);  // as Dispatcher's
  // Finds workers that are silent; called now and then.
  void CheckSilence(TimePoint now);

  bool HasRoom() const;  // for one more request now, as room.h says
  std::vector<WorkerView> Fleet() const;
  std::vector<DiscoveryView> Discovery() const { return sources_->Views(); }
  bool Ready() const;                // a decode worker is usable
  int32_t MinContextTokens() const;  // of connected workers; INT32_MAX without any
  std::string MetricsText() const;   // Prometheus text format, but for what Fleet tells

 private:
  struct Worker {
    std::string address;
    worker_link::WorkerInfo info;
    InternedName fingerprint;  // of `info`
    InternedName kv_layout;    // likewise
    worker_link::WorkerStatus status;
    uint64_t connection = 0;  // counts connections
    bool connected = false;
    bool has_status = false;
    bool refused = false;             // connected, but not for this router's model, or a twin
    bool twin = false;                // another that is connected has its name
    bool stays_while_linked = false;  // as in ListedWorker
    bool unlisted = false;            // no longer in its source, but linked: it stays
    bool leaving = false;             // no longer in its source
    TimePoint last_heard;
    TimePoint told_stalled;
    Circuit circuit;
    int32_t open_requests = 0;
    int64_t open_prompt_tokens = 0;
    int64_t open_blocks = 0;
    uint64_t chosen = 0;            // as in WorkerSnapshot
    int64_t local_tokens_sent = 0;  // to be prefilled by a decode worker, since its last status
    StepPace pace;                  // while it decodes

    bool usable() const {
      return connected && has_status && !refused && !leaving && !status.draining;
    }
    void FillSnapshot(WorkerSnapshot* snapshot) const;
    const char* StateName() const;
  };

  Registry(const RegistryOptions& options, RegistryEvents events);
  // Dials new addresses; those that are gone begin to leave.
  void SetListed(std::vector<ListedWorker> listed);
  // Whether the worker has left its source, and so begins to leave the fleet.
  bool NoteListedLocked(Worker& worker, const ListedWorker* listed) const;
  void DropUnsafe(std::vector<ListedWorker>& listed);
  void Connect(WorkerId id, const std::string& address);
  void DropIdleLeavers();
  void FollowSources();
  void OnInput(WorkerId id, worker_link::ClientInput input);
  void OnBlocks(WorkerId id, const BlockNews& news);
  absl::Status CheckWorker(const worker_link::WorkerInfo& info) const;
  // AlreadyExists when another has the name: what is told of the one could be meant for the other.
  absl::Status CheckNameLocked(const Worker& worker) const;
  // Those whose twin is gone; whether one of them can be used.
  bool AdmitTwinsLocked();
  void OnConnected(WorkerId id, worker_link::WorkerInfo info);
  void WarnOfUnlikeLocked(const Worker& worker) const;
  void OnStatus(WorkerId id, const worker_link::WorkerStatus& status);
  void OnLost(WorkerId id, const absl::Status& why);
  void NoteEvents(WorkerId id, const std::vector<worker_link::Event>& events);
  void NoteFailureLocked(Worker& worker, TimePoint now);
  bool SuspectLocked(const Worker& worker, TimePoint now) const {
    return worker.circuit.IsOpen(now) || now - worker.last_heard >= PatienceWith(worker);
  }
  // A worker says nothing while it computes a step.
  Duration PatienceWith(const Worker& worker) const;
  // A worker of that role, other than this one, that can take its work.
  bool HasOtherLocked(const Worker& worker, TimePoint now) const;
  absl::StatusOr<WorkerId> FindLocked(const std::string& worker) const;
  absl::Status CheckLeftLocked(const Worker& worker) const;
  // The block names of this moment's fleet.
  std::vector<ChainKind> ChainKinds() const;
  Share OpenLocked(WorkerId id, int32_t prompt_tokens, int32_t compute_tokens);
  // Brings the worker's snapshot up to date: after every change of the worker.
  void RefreshLocked(WorkerId id);
  // Time alone makes workers suspect, and makes up for it.
  void RefreshSuspectsLocked(TimePoint now);
  // What holds for all connected workers: the least context, the kinds of chains.
  void CountContextLocked();

  const RegistryOptions options_;
  const RegistryEvents events_;
  std::unique_ptr<WorkerSources> sources_;
  std::set<std::string> unsafe_;  // addresses that were told to be; of who sets them

  PrefixIndex prefixes_;      // what workers hold; never called with mutex_ held
  mutable std::mutex mutex_;  // guards the next twelve
  std::map<WorkerId, Worker> workers_;
  std::vector<WorkerSnapshot> snapshots_;   // of workers_, in their order: what placement looks at
  int32_t min_context_tokens_ = INT32_MAX;  // of connected workers
  WorkerId next_id_ = 0;
  uint64_t last_chosen_ = 0;
  TimePoint last_silence_check_;
  TimePoint suspects_of_;               // when the snapshots' suspects were looked for last
  std::vector<ChainKind> chain_kinds_;  // of connected workers
  planner::StepLearner steps_;          // of all decode workers
  DecodeStepCost decode_step_;          // by steps_
  PromptsUnderWay under_way_;
  SessionMemory sessions_{kRememberedSessions};

  // Held shared while sending, so that a client is never destroyed under a sender.
  mutable std::shared_mutex clients_mutex_;
  std::map<WorkerId, std::unique_ptr<worker_link::LinkClient>> clients_;

  std::thread follower_;
};

}  // namespace baton::router
