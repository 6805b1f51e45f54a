#pragma once

// The device thread's loop, as far as both kinds of worker share it: inputs, deadlines, epochs, one
// answer per attempt, status, drain and the end of a role. What a prefill or a decode worker does
// with an attempt is its own (the virtual methods), and all of it happens on the one thread that
// calls Run.

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "worker_common/attempt_book.h"
#include "worker_common/early_offers.h"
#include "worker_common/host.h"
#include "worker_common/step_meter.h"

namespace baton::worker_common {

class WorkerLoop {
 public:
  // `host` outlives the loop.
  WorkerLoop(WorkerHost* host, worker_link::Role role);
  virtual ~WorkerLoop() = default;
  WorkerLoop(const WorkerLoop&) = delete;
  WorkerLoop& operator=(const WorkerLoop&) = delete;

  // Works until it is drained (no attempt is left, and no transfer) and is to end, or to have
  // another role: then that is returned, and host()'s routers wait for the loop of that role. Call
  // it once.
  std::optional<worker_link::Role> Run();
  // New requests are refused from now on (Unavailable), and Run returns when those accepted are
  // over. Any thread; does not wait.
  void Drain();

 protected:
  // An attempt has been entered into the book: take it on, or Fail it.
  virtual void Start(const Attempt& attempt, worker_link::Command command) = 0;
  // Stops the work of an attempt that is not answered yet, and ends it with Fail(attempt, why).
  virtual void Stop(const Attempt& attempt, const absl::Status& why) = 0;
  virtual void OnHandoff(kv_transfer::HandoffEvent event) = 0;
  // The attempt, not answered yet, gets no offer if it has none.
  virtual void OnNoOffer(const Attempt& attempt) = 0;
  // Admits, computes one step, and so on. Returns false when there is nothing to compute now.
  virtual bool Advance() = 0;
  // Whether nothing is held beside the attempts of the book.
  virtual bool Quiet() const = 0;
  // What only the worker itself knows: its requests, rates and `kv`; the loop fills in the rest.
  virtual worker_link::WorkerStatus CountWork() const = 0;

  WorkerHost& host() { return *host_; }
  engine::Executor& executor() const { return host_->executor(); }
  kv_transfer::HandoffService& handoff() { return host_->handoff(); }
  const WorkerOptions& options() const { return host_->options(); }
  AttemptBook& book() { return book_; }
  StepMeter& step_meter() { return step_meter_; }
  TimePoint now() const { return now_; }  // of this turn of the loop
  bool draining() const {
    const WorkerHost::Duty& duty = host_->duty();
    return ending() || !duty.takes_work || duty.role != role_;
  }
  absl::Status DrainingError() const;

  // The offer that came before its request, if one did.
  std::optional<kv_transfer::OfferInfo> TakeEarlyOffer(const Attempt& attempt) {
    return early_offers_.Take(attempt);
  }
  // An offer that no attempt here waits for: kept a while for its request, which may be on its way;
  // refused when that was here already.
  void KeepOrRefuse(kv_transfer::OfferInfo offer);

  // What the last step has found of the sequence's prompt, to the router.
  void SendScores(const Attempt& attempt, engine::Sequence* sequence);

  // To the router of the attempt, with this step's message. Dropped when nobody waits for it.
  void Send(const Attempt& attempt, worker_link::Event event);
  // Likewise, and the attempt is answered: nothing more is sent for it.
  void Answer(const Attempt& attempt, worker_link::Event event);
  void Fail(const Attempt& attempt, const absl::Status& why);
  // For log lines: with its trace, where there is one.
  std::string NameOf(const Attempt& attempt);

 private:
  bool ending() const { return ending_.load(std::memory_order_relaxed); }
  void TakeInputs(Duration wait);
  void OnLink(worker_link::LinkInput input);
  void OnCommand(worker_link::LinkId link, worker_link::Command command);
  void OnDuty(const worker_link::DutyCommand& duty);
  void SeeEnding();
  void StopAll(const std::vector<Attempt>& attempts, const absl::Status& why);
  void StopExpired();
  void ExpireEarlyOffers();
  void Flush();
  void ReportStatus();
  void TellBlocks();
  void NoteStep(Duration step);

  WorkerHost* const host_;
  const worker_link::Role role_;
  const Clock& clock_;
  AttemptBook book_;
  EarlyOffers early_offers_;
  StepMeter step_meter_;
  TimePoint now_;
  TimePoint next_deadline_check_;
  std::atomic<bool> ending_ = false;
  bool ending_seen_ = false;
  absl::flat_hash_map<worker_link::LinkId, std::vector<worker_link::Event>> outgoing_;
  worker_link::WorkerStatus reported_;
  TimePoint reported_at_;
  Duration longest_step_{};         // since step_window_
  Duration longest_step_before_{};  // in the window before
  TimePoint step_window_;
  bool status_waits_ = false;  // it may have changed since
  uint64_t blocks_told_ = 0;   // of the journal's changes
  TimePoint blocks_told_at_;
  bool blocks_wait_ = false;  // to be told
};

}  // namespace baton::worker_common
