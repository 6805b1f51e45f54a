#include "simulator/simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "common/status_macros.h"
#include "simulator/checked_requests.h"
#include "simulator/decode_model.h"
#include "simulator/event_queue.h"
#include "simulator/prefill_model.h"
#include "simulator/request_source.h"
#include "simulator/simulated_router.h"

namespace baton::simulator {
namespace {

using worker_link::Role;

constexpr double kStatusEveryS = 0.1;  // as worker_common/loop.cc
constexpr double kMoveAgainS = 1;

// A request on its way.
struct Live {
  SimulatedRequest request;
  int64_t number = 0;
  int32_t delivered = 0;  // output tokens before it was placed last
  double first_token_s = -1;
  double last_token_s = -1;  // before it was placed last
  std::optional<size_t> prefill;
  size_t decode = 0;
  int32_t placed_tokens = 0;  // prompt, and what was delivered
  bool granted = false, prefilled = false;
  PrefillJob job;
};

class Simulation {
 public:
  Simulation(const SimulatedWorker& worker, const planner::Workload& workload,
             const SimulationOptions& options, int64_t requests)
      : worker_(worker),
        options_(options),
        source_(workload, options.faster, options.seed),
        left_(requests),
        router_(&worker_, {.local_prefill_tokens = options.local_prefill_tokens,
                           .exact_load = options.exact_load,
                           .prefix_block_tokens = static_cast<int32_t>(workload.block_tokens)}) {
    workers_.reserve(static_cast<size_t>(options.prefill + options.decode));
    for (int64_t i = 0; i < options.prefill + options.decode; ++i) {
      const Role role = i < options.prefill ? Role::kPrefill : Role::kDecode;
      router_.AddWorker(role);
      views_.push_back({.role = role});
      workers_.push_back({PrefillModel(&worker_, static_cast<int32_t>(workload.block_tokens)),
                          DecodeModel(&worker_)});
    }
    result_.requests = requests;
  }

  SimulationResult Run() {
    Arrive();
    if (options_.control != nullptr) events_.Push(first_arrival_s_, EventKind::kControl, 0);
    while (!events_.empty() && ended_ < result_.requests) {
      const Event event = events_.Pop();
      now_s_ = event.at_s;
      Handle(event);
    }
    Sum();
    return std::move(result_);
  }

 private:
  struct Worker {
    PrefillModel prefill;
    DecodeModel decode;
    Role wanted = Role::kDecode;
    double told_s = -kStatusEveryS;
    bool leaving = false;  // its streams go on elsewhere
  };

  void Handle(const Event& event) {
    const auto subject = static_cast<size_t>(event.subject);
    switch (event.kind) {
      case EventKind::kArrival:
        if (options_.control != nullptr) {
          const Live& live = At(event.subject);
          options_.control->OnArrival(now_s_, live.number, live.request.input_tokens);
        }
        waiting_.push_back(event.subject);
        Pump();
        Arrive();
        break;
      case EventKind::kPrefillStep:
        EndPrefillStep(subject);
        break;
      case EventKind::kPrefixHere:
        PrefixHere(event.subject);
        break;
      case EventKind::kFirstToken:
        FirstToken(event.subject);
        break;
      case EventKind::kKvHere:
        KvHere(event.subject);
        break;
      case EventKind::kDecodeStep:
        EndDecodeStep(subject);
        break;
      case EventKind::kControl:
        Control();
        break;
      case EventKind::kMove:
        Move(subject);
        break;
    }
  }

  void Arrive() {
    if (left_ == 0) return;
    --left_;
    Live live{.request = source_.Take(), .number = taken_};
    if (taken_++ == 0) first_arrival_s_ = live.request.arrival_s;
    last_arrival_s_ = live.request.arrival_s;
    int64_t slot = static_cast<int64_t>(live_.size());
    if (free_slots_.empty()) {
      live_.push_back(live);
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
      live_[static_cast<size_t>(slot)] = live;
    }
    events_.Push(live.request.arrival_s, EventKind::kArrival, slot);
  }

  Live& At(int64_t slot) { return live_[static_cast<size_t>(slot)]; }

  void Pump() {
    while (!waiting_.empty() && router_.HasRoom()) {
      const int64_t slot = waiting_.front();
      waiting_.pop_front();
      Place(slot);
    }
  }

  void Place(int64_t slot) {
    Live& live = At(slot);
    if (options_.exact_load) {
      for (size_t i = 0; i < workers_.size(); ++i) {
        router_.SetQueued(static_cast<router::WorkerId>(i),
                          workers_[i].prefill.RemainingTokens(now_s_));
      }
    }
    live.placed_tokens = live.request.input_tokens + live.delivered;
    const router::Placement placement = router_.Place({.tokens = live.placed_tokens,
                                                       .prefix = live.request.prefix,
                                                       .prefix_round = live.request.prefix_round});
    // All workers hold every request, and one decode worker always takes work.
    const router::Placed& placed = std::get<router::Placed>(placement);
    live.decode = placed.decode;
    live.prefill.reset();
    live.granted = live.prefilled = false;
    if (!placed.prefill) {
      EnterLine(slot, false);
      return;
    }
    live.prefill = *placed.prefill;
    live.job = {.request = slot,
                .tokens = live.placed_tokens,
                .cached_share = live.request.cached_share,
                .prefix = live.request.prefix,
                .prefix_round = live.request.prefix_round};
    PrefillModel& prefill = workers_[*live.prefill].prefill;
    if (placed.donor) {
      const int32_t own = prefill.CachedTokens(live.job);
      const int32_t held = workers_[placed.donor->worker].prefill.CachedTokens(live.job);
      live.job.fetched_tokens = std::max(own, std::min(held, placed.donor->tokens));
      fetched_tokens_ += live.job.fetched_tokens - own;
      events_.Push(now_s_ + MoveSeconds(live.job.fetched_tokens - own), EventKind::kPrefixHere,
                   slot);
      return;
    }
    PrefixHere(slot);
  }

  void PrefixHere(int64_t slot) {
    const size_t prefill = *At(slot).prefill;
    workers_[prefill].prefill.Add(At(slot).job);
    BeginPrefillStep(prefill);
  }

  void EnterLine(int64_t slot, bool by_handoff) {
    const Live& live = At(slot);
    workers_[live.decode].decode.EnterLine({.request = slot,
                                            .ticket = live.number,
                                            .tokens = live.placed_tokens,
                                            .left = live.request.output_tokens - live.delivered,
                                            .by_handoff = by_handoff,
                                            .last_token_s = live.last_token_s});
    BeginDecodeStep(live.decode);
  }

  void BeginPrefillStep(size_t worker) {
    const auto step = workers_[worker].prefill.BeginStep(now_s_);
    if (!step) return;
    events_.Push(now_s_ + step->seconds, EventKind::kPrefillStep, static_cast<int64_t>(worker));
    for (const int64_t slot : step->begun) {
      if (At(slot).delivered == 0) result_.wait_s.Add(now_s_ - At(slot).request.arrival_s);
    }
    for (const int64_t slot : step->started) EnterLine(slot, true);
  }

  void EndPrefillStep(size_t worker) {
    PrefillModel& model = workers_[worker].prefill;
    const std::vector<PrefillJob> complete = model.EndStep();
    router_.SetPrefillRate(static_cast<router::WorkerId>(worker), model.tokens_per_s());
    const double bubble_s = (worker_.stages - 1) * model.last_step_s();
    for (const PrefillJob& job : complete) {
      At(job.request).job = job;
      router_.EndPrompt(
          {.tokens = job.tokens, .prefix = job.prefix, .prefix_round = job.prefix_round},
          static_cast<router::WorkerId>(worker));
      prompt_tokens_ += job.tokens;
      cached_tokens_ += job.cached_tokens;
      if (bubble_s > 0) {
        events_.Push(now_s_ + bubble_s, EventKind::kFirstToken, job.request);
      } else {
        FirstToken(job.request);
      }
    }
    BeginPrefillStep(worker);
  }

  void NoteFirstToken(Live* live, int32_t cached_tokens) {
    if (live->first_token_s >= 0) return;
    live->first_token_s = now_s_;
    result_.ttft_s.Add(now_s_ - live->request.arrival_s);
    if (options_.control != nullptr) {
      options_.control->OnFirstToken(now_s_, live->number, cached_tokens);
    }
  }

  void FirstToken(int64_t slot) {
    Live& live = At(slot);
    if (live.last_token_s >= 0) result_.itl_s.Add(now_s_ - live.last_token_s);
    NoteFirstToken(&live, live.job.cached_tokens);
    live.last_token_s = now_s_;
    live.prefilled = true;
    if (live.granted) MoveKv(slot, live.job.last_chunk_tokens);
  }

  // What has not moved while the prompt was computed.
  void MoveKv(int64_t slot, int32_t tokens) {
    events_.Push(now_s_ + MoveSeconds(tokens), EventKind::kKvHere, slot);
  }

  double MoveSeconds(int32_t tokens) const {
    if (worker_.kv_bytes_per_s <= 0) return 0;
    return planner::TransferSeconds(worker_.kv_bytes_per_token, tokens, worker_.kv_bytes_per_s);
  }

  void KvHere(int64_t slot) {
    Live& live = At(slot);
    const size_t prefill = *live.prefill;
    const auto prefill_id = static_cast<router::WorkerId>(prefill);
    workers_[prefill].prefill.Release(live.job);
    router_.SetBlocks(prefill_id, workers_[prefill].prefill.TakeCacheChanges());
    router_.Release(prefill_id, live.placed_tokens);
    live.prefill.reset();
    const size_t decode = live.decode;
    if (workers_[decode].decode.Receive(slot, live.last_token_s)) End(slot);
    BeginDecodeStep(decode);
    BeginPrefillStep(prefill);
    Turn(prefill);
    Pump();
  }

  void BeginDecodeStep(size_t worker) {
    DecodeModel& model = workers_[worker].decode;
    if (model.stepping()) return;
    for (const int64_t slot : model.Admit()) {
      At(slot).granted = true;
      if (At(slot).prefilled) MoveKv(slot, At(slot).job.tokens - At(slot).job.cached_tokens);
    }
    if (const auto seconds = model.BeginStep()) {
      events_.Push(now_s_ + *seconds, EventKind::kDecodeStep, static_cast<int64_t>(worker));
    }
  }

  void EndDecodeStep(size_t worker) {
    DecodeModel& model = workers_[worker].decode;
    const DecodeModel::StepEnd end = model.EndStep(now_s_);
    result_.itl_s.Add(end.common_gap_s, static_cast<double>(end.common_gaps));
    for (const double gap_s : end.other_gaps_s) result_.itl_s.Add(gap_s);
    for (const int64_t slot : end.first_tokens) NoteFirstToken(&At(slot), 0);
    for (const int64_t slot : end.finished) End(slot);
    Worker& of = workers_[worker];
    if (now_s_ - of.told_s >= kStatusEveryS || !end.finished.empty()) {
      of.told_s = now_s_;
      router_.SetFreeBlocks(static_cast<router::WorkerId>(worker), model.free_blocks());
    }
    if (of.leaving) MoveAway(worker);
    BeginDecodeStep(worker);
    if (end.finished.empty()) return;
    Turn(worker);
    Pump();
  }

  void End(int64_t slot) {
    Live& live = At(slot);
    router_.Release(static_cast<router::WorkerId>(live.decode), live.placed_tokens);
    const int32_t output = live.request.output_tokens;
    const double gap_s = output > 1 ? (now_s_ - live.first_token_s) / (output - 1) : 0;
    const double ttft_s = live.first_token_s - live.request.arrival_s;
    const bool good = (options_.ttft_slo_s <= 0 || ttft_s <= options_.ttft_slo_s) &&
                      (options_.itl_slo_s <= 0 || gap_s <= options_.itl_slo_s);
    result_.good_requests += good ? 1 : 0;
    if (options_.control != nullptr) options_.control->OnEnd(now_s_, live.number, output);
    ++ended_;
    free_slots_.push_back(slot);
  }

  // ---- changes of role ----

  void Control() {
    for (size_t i = 0; i < views_.size(); ++i) {
      const router::WorkerSnapshot& worker = router_.workers()[i];
      views_[i] = {.role = worker.role, .draining = worker.draining, .requests = worker.requests};
    }
    for (const Worker& worker : workers_) {
      for (const DecodeJob& job : worker.decode.Decoding()) {
        const Live& live = At(job.request);
        options_.control->OnProgress(live.number, live.request.output_tokens - job.left);
      }
    }
    for (const RoleChange& change :
         options_.control->Decide({.now_s = now_s_, .workers = views_})) {
      const size_t worker = change.worker;
      if (router_.workers()[worker].role == change.role || !MayGo(worker)) continue;
      router_.SetDraining(static_cast<router::WorkerId>(worker), true);
      workers_[worker].wanted = change.role;
      events_.Push(now_s_ + options_.grace_s, EventKind::kMove, static_cast<int64_t>(worker));
      Turn(worker);
    }
    events_.Push(now_s_ + options_.control_every_s, EventKind::kControl, 0);
  }

  // Not the last decode worker.
  bool MayGo(size_t worker) const {
    return std::ranges::any_of(router_.workers(), [&](const router::WorkerSnapshot& other) {
      return other.id != worker && other.role == Role::kDecode && !other.draining;
    });
  }

  // One that drains takes its other role when all that it had has ended.
  void Turn(size_t worker) {
    const auto id = static_cast<router::WorkerId>(worker);
    const router::WorkerSnapshot& snapshot = router_.workers()[worker];
    if (!snapshot.draining || snapshot.requests > 0) return;
    workers_[worker].leaving = false;
    router_.SetRole(id, workers_[worker].wanted);
    router_.SetDraining(id, false);
    router_.SetFreeBlocks(id, worker_.kv_blocks);
    ++result_.role_changes;
    Pump();
  }

  // The grace is over: streams go on elsewhere. Those whose KV is on its way follow.
  void Move(size_t worker) {
    if (!router_.workers()[worker].draining) return;
    workers_[worker].leaving = true;
    if (!workers_[worker].decode.stepping()) MoveAway(worker);
    if (!workers_[worker].leaving) return;
    events_.Push(now_s_ + kMoveAgainS, EventKind::kMove, static_cast<int64_t>(worker));
  }

  void MoveAway(size_t worker) {
    for (const DecodeJob& job : workers_[worker].decode.TakeAway()) {
      Live& live = At(job.request);
      router_.Release(static_cast<router::WorkerId>(worker), live.placed_tokens);
      live.delivered = live.request.output_tokens - job.left;
      live.last_token_s = job.last_token_s;
      ++result_.moved;
      Place(job.request);
    }
    Turn(worker);
  }

  void Sum() {
    result_.duration_s = now_s_ - first_arrival_s_;
    result_.rate_per_s =
        static_cast<double>(result_.requests - 1) / (last_arrival_s_ - first_arrival_s_);
    double prefill_s = 0, decode_s = 0, tokens = 0, steps = 0;
    for (const Worker& worker : workers_) {
      prefill_s += worker.prefill.busy_s();
      decode_s += worker.decode.busy_s();
      tokens += static_cast<double>(worker.decode.tokens());
      steps += static_cast<double>(worker.decode.steps());
      result_.preemptions += worker.decode.preemptions();
    }
    const double span_s = std::max(result_.duration_s, 1e-12);
    const auto share = [&](double busy_s, int64_t workers) {
      return workers > 0 ? busy_s / (span_s * static_cast<double>(workers)) : 0;
    };
    result_.prefill_utilisation = share(prefill_s, options_.prefill);
    result_.decode_utilisation = share(decode_s, options_.decode);
    result_.mean_batch = steps > 0 ? tokens / steps : 0;
    result_.cached_share = prompt_tokens_ > 0 ? cached_tokens_ / prompt_tokens_ : 0;
    result_.fetched_share = prompt_tokens_ > 0 ? fetched_tokens_ / prompt_tokens_ : 0;
  }

  const SimulatedWorker worker_;
  const SimulationOptions options_;
  RequestSource source_;
  int64_t left_;
  int64_t taken_ = 0, ended_ = 0;
  SimulatedRouter router_;
  std::vector<Worker> workers_;
  std::vector<FleetView::Worker> views_;
  std::vector<Live> live_;
  std::vector<int64_t> free_slots_;
  std::deque<int64_t> waiting_;  // in the router
  EventQueue events_;
  double now_s_ = 0, first_arrival_s_ = 0, last_arrival_s_ = 0;
  double prompt_tokens_ = 0, cached_tokens_ = 0, fetched_tokens_ = 0;
  SimulationResult result_;
};

}  // namespace

absl::StatusOr<SimulationResult> Simulate(const SimulatedWorker& worker,
                                          const planner::Workload& workload,
                                          const SimulationOptions& options) {
  BATON_ASSIGN_OR_RETURN(const int64_t requests, CheckedRequests(worker, workload, options));
  return Simulation(worker, workload, options, requests).Run();
}

}  // namespace baton::simulator
