#pragma once

// A request in the router: its Flow, with the calls that the flow's actions ask for.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/flow.h"
#include "router/metrics.h"
#include "router/registry.h"
#include "router/request.h"
#include "router/traffic_watch.h"

namespace baton::router {

// What all live requests share; outlives them.
struct LiveContext {
  Registry* registry = nullptr;
  RouterMetrics* metrics = nullptr;
  TrafficWatch* watch = nullptr;  // null: nobody looks
  const Clock* clock = nullptr;
  Duration worker_wait{};
  int32_t local_prefill_tokens = 0;
  // Whether one more request may be placed again now: the fleet's budget.
  std::function<bool(TimePoint now)> may_place_again;
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

  // Instead of Start, for a request that had to wait for its turn: every outcome comes through the
  // sink.
  void Begin();

  void OnEvent(WorkerId from, worker_link::Event event);
  void OnWorkerLost(WorkerId worker, const absl::Status& why);
  void OnWorkerStalled(WorkerId worker, const absl::Status& why);
  void OnWorkerLeaving(WorkerId worker);
  // Now and then, and when a worker became usable: deadlines, and placement of what waits.
  void OnTick(TimePoint now);
  void Fail(absl::Status status);
  void Cancel();

  uint64_t handle() const { return handle_; }
  bool waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  using Output = std::variant<Delta, Finish, absl::Status>;

  void PlaceFirstLocked();
  void PlaceLocked(bool only_others = false);
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
  void MeasureLocked(const Output& output);
  // Gives what is in the outbox to the sink, unless another thread is doing so already.
  void Deliver(std::unique_lock<std::mutex> lock);
  void Call(Output output) const;

  const LiveContext& context_;
  const uint64_t handle_;
  const TimePoint deadline_;
  const std::vector<TokenId> prompt_;
  const std::vector<uint64_t> affinity_keys_;
  const std::string cache_salt_;

  std::mutex mutex_;
  Flow flow_;
  ResponseSink sink_;
  bool started_ = false;
  std::atomic<bool> waiting_{true};  // as flow_ says; read without the lock
  TimePoint wait_until_;
  std::string why_waiting_;
  std::string why_again_;  // ends in "; " when a worker has failed it
  std::optional<Share> decode_share_;
  std::optional<Share> prefill_share_;
  std::deque<Output> outbox_;
  bool delivering_ = false;
  bool reported_ = false;  // on_ended was called
  std::optional<TimePoint> last_token_;
};

}  // namespace baton::router
