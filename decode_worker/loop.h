#pragma once

// A decode worker's device thread: continuous batching over the paged KV pool. A prompt's KV comes
// by handoff, or is prefilled here, in chunks beside the decoding sequences.
//
//   Start, KV by handoff ─► awaiting offer ─► in line ─► receiving ─► running ─► gone
//   Start, prefill here ────────────────────► in line ──────────────► running ─► gone
//
// Without a fitting offer in time, when the router says that none will come, or after a transfer
// that failed, a request goes (back) into the line to be prefilled here. One that is stopped while
// it receives is "ending": it holds its blocks until TargetDone, since they may be written to until
// then.
//
// The line is in the order of arrival: its first request waits until its blocks can be had, and the
// others behind it. A sequence that grows takes blocks from the youngest running one, which goes
// back into the line and is prefilled again later, prompt and output: by the batch invariance of
// the kernels it goes on exactly as if nothing had happened.

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "decode_worker/counters.h"
#include "decode_worker/scheduler.h"
#include "engine/executor.h"
#include "worker_common/loop.h"

namespace baton::decode_worker {

class DecodeLoop final : public worker_common::WorkerLoop {
 public:
  explicit DecodeLoop(worker_common::WorkerHost* host);

  // Any thread.
  DecodeCounters counters() const;

 private:
  enum class Stage { kAwaitingOffer, kInLine, kReceiving, kRunning, kEnding };
  struct Job {
    Attempt attempt;
    Stage stage = Stage::kAwaitingOffer;
    uint64_t ticket = 0;      // order of arrival; the youngest has the highest
    bool by_handoff = false;  // its KV comes from a prefill worker
    bool converted = false;   // from another layout
    TimePoint offer_deadline;
    std::string cache_salt;
    engine::Sequence sequence;
    bool admitted = false;  // was running or receiving before
    int32_t cached_tokens = 0;
    int64_t served_step = 0;
    kv_transfer::TransferStats transfer;
    Duration handover{};  // the commit's arrival to the first step
    Duration queue{};     // receipt to the first admission
    int32_t steps = 0;    // that gave it a token
    int32_t preemptions = 0;
    // Of a prompt that is prefilled here:
    int32_t chunks = 0;
    TimePoint computing;  // since when
    Duration first_chunk{};
    bool token_sent = false;
  };

  void Start(const Attempt& attempt, worker_link::Command command) override;
  void Stop(const Attempt& attempt, const absl::Status& why) override;
  void OnHandoff(kv_transfer::HandoffEvent event) override;
  void OnNoOffer(const Attempt& attempt) override;
  bool Advance() override;
  bool Quiet() const override { return jobs_.empty(); }
  worker_link::WorkerStatus CountWork() const override;

  // Handoff.
  void OnOffer(kv_transfer::OfferInfo offer);
  void TakeOffer(Job* job, const kv_transfer::OfferInfo& offer);
  void OnTargetDone(kv_transfer::TargetDone done);
  absl::Status TakeFirstToken(Job* job, const kv_transfer::TargetDone& done);
  void SettleEndings();
  void EndIfOver(Job* job);
  void Leave(Job* job, const absl::Status& why);
  void ExpireOffers();
  void FallBackToPrefill(Job* job, const absl::Status& why);
  void PrefillHere(Job* job);

  // Blocks.
  absl::Status CheckFits(const engine::Sequence& sequence) const;
  void EnterLine(Job* job);
  void AdmitFromLine();
  bool Admit(Job* job);
  void Grant(Job* job);
  void JoinBatch(Job* job);
  void DropBlocks(engine::Sequence* sequence);
  bool ReserveByPreempting(Job* job);
  void Preempt(Job* job);

  void ComputeStep();
  void TakeToken(Job* job, const OutputToken& token);
  worker_link::PrefillTimes PrefillTimesOf(const Job& job) {
    return {.cached_prompt_tokens = job.cached_tokens,
            .chunks = job.chunks,
            .queue = job.computing - book().Find(job.attempt)->received,
            .first_chunk = job.first_chunk,
            .compute = SystemClock().Now() - job.computing};
  }
  void Finish(Job* job, FinishReason reason);
  void Erase(Attempt attempt);  // by value: it may be the job's own
  Job* Find(const Attempt& attempt);

  const Limits limits_;
  absl::flat_hash_map<Attempt, std::unique_ptr<Job>> jobs_;
  std::deque<Job*> awaiting_offer_;  // earliest offer_deadline first
  std::vector<Job*> unsettled_;      // whether their constraint lets them go on is not known yet
  std::map<uint64_t, Job*> line_;    // by ticket
  std::vector<Job*> running_;        // by ticket
  int32_t receiving_ = 0;            // transfers that hold blocks
  uint64_t last_ticket_ = 0;

  // The first of the line found no room then: trying again is in vain until one of these changes.
  struct Blocked {
    uint64_t ticket = 0;
    int32_t available = 0;
    size_t running = 0;
    int32_t receiving = 0;
    bool operator==(const Blocked&) const = default;
  };
  Blocked blocked_;

  DecodeCounters counters_;
  mutable std::mutex mutex_;
  DecodeCounters published_;  // guarded by mutex_
};

}  // namespace baton::decode_worker
