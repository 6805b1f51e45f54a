#pragma once

// A request in the router: its Flow, with the calls that the flow's actions ask for.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/fair_queue.h"
#include "router/flow.h"
#include "router/metrics.h"
#include "router/registry.h"
#include "router/request.h"
#include "router/request_record.h"
#include "router/traffic_watch.h"

namespace baton::router {

class Telemetry;

// What all live requests share; outlives them.
struct LiveContext {
  std::string model_name;
  Telemetry* telemetry = nullptr;  // may be null
  Registry* registry = nullptr;
  RouterMetrics* metrics = nullptr;
  TrafficWatch* watch = nullptr;  // null: nobody looks
  const Clock* clock = nullptr;
  Duration worker_wait{};
  int32_t local_prefill_tokens = 0;
  int32_t local_uncached_tokens = 0;
  // Whether one more request may be placed again now: the fleet's budget.
  std::function<bool(TimePoint now)> may_place_again;
  // Whether a request that is to be placed again has to wait for its turn, like new ones: Begin is
  // called then.
  std::function<bool(QueuedRequest place)> must_wait;
  std::function<void(uint64_t handle)> on_ended;  // once a request, after its last sink call
};

// Thread-safe. Sink calls come in order, one at a time, on whatever thread brought the event, with
// no lock held. Workers are told without blocking.
class LiveRequest {
 public:
  LiveRequest(const LiveContext* context, FlowRequest request, std::vector<TokenId> prompt,
              std::string cache_salt, const text::Tokenizer* tokenizer, ResponseSink sink,
              TimePoint deadline);

  // The first placement, called once; ticks do nothing before it. An error is the request's ending;
  // the sink is not called then.
  absl::Status Start();

  // The turn has come that the request waited for, before its first placement (instead of Start) or
  // before it is placed again. Every outcome comes through the sink.
  void Begin();

  void OnEvent(WorkerId from, worker_link::Event event, TimePoint now);
  void OnWorkerLost(WorkerId worker, const absl::Status& why);
  void OnWorkerStalled(WorkerId worker, const absl::Status& why);
  void OnWorkerLeaving(WorkerId worker);
  // Now and then, and when a worker became usable: deadlines, and placement of what waits for a
  // worker (not of what waits for its turn).
  void OnTick(TimePoint now);
  // Whether a tick would do anything. Takes no lock.
  bool IsDue(TimePoint now) const { return now >= deadline_ || waiting(); }
  void Fail(absl::Status status);
  void Cancel();

  uint64_t handle() const { return handle_; }
  // As far as it has come.
  RequestRecord Record(TimePoint now) const;
  bool waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  using Output = std::variant<Delta, Finish, absl::Status>;

  void PlaceFirstLocked();
  void TakeTurnLocked();
  void PlaceLocked(bool only_others = false);
  // Its place in the line of those that are to be placed again: one beside that of the tenant's new
  // requests, so that neither holds the other up.
  QueuedRequest PlaceInLineLocked() const;
  // After a worker's failure, unless the fleet's budget is spent.
  void PlaceAgainLocked(const FlowActions::Place& place);
  // False: it decodes there, and nobody else could take it.
  bool MayLeaveLocked(WorkerId worker) const;
  // The prompt of the attempt: the request's, and what was delivered of its output.
  std::vector<TokenId> AttemptPromptLocked() const;
  // Tells the workers. The worker that took nothing, if one did: then no other keeps the attempt.
  std::optional<WorkerId> SendLocked(const Registry::Assignment& assignment);
  // False when the donor took nothing.
  bool AskDonorLocked(const Registry::Assignment& assignment);
  void RefusedLocked(const Refusal& refusal);
  void ApplyLocked(FlowActions actions);
  void ReleaseLocked();
  void MeasureTokensLocked();
  void MeasureEndLocked(const Output& output);
  void NoteEndLocked(absl::Status status, std::string_view finish_reason);
  void NoteFirstTokenLocked() { placed_.of_first_token = placed_.last; }
  RequestRecord RecordLocked(TimePoint now) const;
  // Gives what is in the outbox to the sink, unless another thread is doing so already.
  void Deliver(std::unique_lock<std::mutex> lock);
  void Call(Output output) const;

  const LiveContext& context_;
  const uint64_t handle_;
  const TimePoint deadline_;
  const std::vector<TokenId> prompt_;
  const std::string cache_salt_;

  mutable std::mutex mutex_;  // guards all below
  Flow flow_;
  ResponseSink sink_;
  bool started_ = false;
  bool in_line_ = false;                 // it waits for its turn to be placed again
  bool has_turn_ = false;                // it need not
  std::optional<WorkerId> moving_from_;  // while it is in line: it goes on there until then
  std::atomic<bool> waiting_{true};      // as flow_ says; read without the lock
  TimePoint wait_until_;
  std::string why_waiting_;
  std::string why_again_;  // ends in "; " when a worker has failed it
  std::optional<Share> decode_share_;
  std::optional<Share> prefill_share_;
  std::vector<Output> outbox_;
  size_t outbox_next_ = 0;  // of outbox_: those before it are delivered
  bool delivering_ = false;
  bool reported_ = false;    // on_ended was called
  int32_t measured_tokens_;  // of those delivered
  std::optional<TimePoint> last_token_;
  Placements placed_;
  std::vector<RequestRecord::Move> moves_;  // at most kMaxMoves
  TimePoint ended_;
  absl::Status ending_;             // from ended_ on
  std::string_view finish_reason_;  // likewise
};

}  // namespace baton::router
