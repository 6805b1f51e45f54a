#pragma once

// A prefill worker's device thread: prompts wait, compute chunk by chunk while their KV is handed
// over, and hold their blocks until the target has them.
//
//   Start ─► waiting ─► computing ─► handing over ─► gone      (Offer at computing's start,
//            │    ▼         ▲ │            │                     Commit at its end)
//            │   awaiting   │ │            │
//            │   prefix ─► fetching        │                    (a prefix from another worker)
//            │    │         ▼ ▲            │
//            │    └───────► reading        │                    (a prefix from disk)
//            └──────┴───────┴─┴────────────┴─ Stop, failure ─► ending ─► gone
//
//   Start ─► (reading ─►) serving ─► gone                      (a prefix, to another worker)
//
// A prompt that was offered is gone only with its SourceDone: until then somebody may read its
// blocks. One that fetches is gone only with its TargetDone: until then somebody may write them. A
// read from disk can be given up at once.

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/executor.h"
#include "kv_disk/disk_tier.h"
#include "prefill_worker/counters.h"
#include "prefill_worker/scheduler.h"
#include "worker_common/loop.h"

namespace baton::prefill_worker {

class PrefillLoop final : public worker_common::WorkerLoop {
 public:
  // `disk` may be null: no KV is kept on disk. Both outlive the loop.
  PrefillLoop(worker_common::WorkerHost* host, kv_disk::DiskTier* disk);

  // Any thread.
  PrefillCounters counters() const;

 private:
  enum class Stage {
    kWaiting,
    kAwaitingPrefix,
    kFetching,
    kReading,
    kComputing,
    kHandingOver,
    kServing,
    kEnding
  };
  struct Job {
    Attempt attempt;
    Stage stage = Stage::kWaiting;
    std::string target_address;
    std::string target_name;
    engine::Sequence sequence;
    int32_t cached_tokens = 0;
    int32_t blocks_announced = 0;
    int32_t prefix_tokens = 0;                           // that another worker was asked for
    std::optional<kv_transfer::OfferInfo> prefix_offer;  // not answered yet
    TimePoint prefix_deadline;                           // of the offer, or the read
    bool for_other_worker = false;                       // its prefix is to be served
    kv_disk::ReadId read = 0;                            // while kReading
    int32_t blocks_reading = 0;                          // likewise
    int32_t blocks_saved = 0;                            // on disk, or on their way there
    TimePoint started;
    TimePoint computing;  // since when
    int32_t chunks = 0;   // of these the first took first_chunk
    Duration first_chunk{};
  };

  void Start(const Attempt& attempt, worker_link::Command command) override;
  void Stop(const Attempt& attempt, const absl::Status& why) override;
  void OnHandoff(kv_transfer::HandoffEvent event) override;
  void OnNoOffer(const Attempt& attempt) override;
  bool Advance() override;
  bool Quiet() const override { return jobs_.empty(); }
  worker_link::WorkerStatus CountWork() const override;

  absl::StatusOr<engine::Sequence> CheckedSequence(worker_link::PrefillCommand command) const;
  absl::Status CheckGoesOn(const engine::Sequence& sequence) const;
  void StartWaiting();
  bool TakeBlocks(Job* job);
  void BeginComputing(Job* job);
  absl::Status OfferBlocks(Job* job);
  void ComputeStep();
  void AnnounceBlocks(Job* job, int32_t tokens);
  void AnnounceLayers(const Job& job, int32_t tokens, int32_t layers);
  int32_t CompleteBlocks(const Job& job, int32_t tokens) const;
  void FinishPrefill(Job* job, OutputToken token);
  void OnSourceDone(const kv_transfer::SourceDone& done);
  void Erase(Attempt attempt);  // by value: it may be the job's own
  // The oldest that may start now; empty when none may.
  std::optional<size_t> NextToStart() const;
  double PrefillTokensPerSecond() const;  // 0: not measured yet
  int32_t ToCompute(const Job& job) const;
  std::vector<int32_t> PendingOf(std::span<Job* const> jobs) const;

  // Prefixes, in loop_prefix.cc.
  void ServePrefix(const Attempt& attempt, worker_link::ServePrefixCommand command);
  void OnOffer(kv_transfer::OfferInfo offer);
  void AwaitPrefix(Job* job);
  void TakePrefixOffer(Job* job);
  absl::Status CheckPrefixOffer(const Job& job, const kv_transfer::OfferInfo& offer) const;
  void OnTargetDone(const kv_transfer::TargetDone& done);
  void EndFetching(Job* job);
  void ExpireFetching();
  void OfferPrefix(Job* job);

  // KV on disk, in loop_disk.cc.
  void ReadOrCompute(Job* job);
  bool StartReading(Job* job, int32_t most_blocks);
  void TakeReads();
  void EndReading(Job* job, int32_t blocks);
  void SaveBlocks(Job* job);
  void EndDiskWork(Job* job);
  std::span<std::byte> BlockBytes(const Job& job, int32_t index) const;
  worker_link::DiskCacheStatus CountDisk() const;

  const Limits limits_;
  kv_disk::DiskTier* const disk_;
  absl::flat_hash_map<Attempt, std::unique_ptr<Job>> jobs_;
  std::deque<Job*> waiting_;     // oldest first
  std::vector<Job*> fetching_;   // awaiting a prefix, fetching or reading it
  std::vector<Job*> computing_;  // oldest first
  double kv_bytes_per_s_ = 0;    // of the prefixes that came; 0: none yet
  PrefillCounters counters_;
  mutable std::mutex mutex_;
  PrefillCounters published_;  // guarded by mutex_
};

}  // namespace baton::prefill_worker
