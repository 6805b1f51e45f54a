#include "router/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>

#include "planner/cost_model.h"

namespace baton::router {
namespace {

using worker_link::Role;

bool Usable(const WorkerSnapshot& worker, Role role) {
  return worker.role == role && worker.connected && !worker.draining;
}

bool Avoided(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return std::find(request.avoid.begin(), request.avoid.end(), worker.id) != request.avoid.end();
}

bool Holds(const WorkerSnapshot& worker, int32_t prompt_tokens) {
  return BlocksNeeded(worker.block_tokens, prompt_tokens) <= worker.blocks_total;
}

HeldPrefix HeldBy(WorkerId worker, const PlacementRequest& request) {
  if (worker >= request.held.size()) return {};
  return request.held[worker];
}

// The last token is computed in any case.
int32_t Usable(int32_t held_tokens, const PlacementRequest& request) {
  return std::clamp(held_tokens, 0, std::max(request.prompt_tokens - 1, 0));
}

// How many requests more than the least loaded worker's are worth a longer held prefix.
constexpr int32_t kSlackShare = 8;

// Whether the prompt could begin there now.
bool MustWait(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return BlocksNeeded(worker.block_tokens, request.prompt_tokens) > worker.blocks_available ||
         (worker.max_sequences > 0 && worker.requests >= worker.max_sequences);
}

// Smaller is better; compared field by field. The first three: whether it should be used at all.
auto DecodeStanding(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return std::tuple(Avoided(worker, request), worker.suspect, MustWait(worker, request));
}

// The time from one token to the next, were the prompt there: a float's exponent and the first
// three bits behind it are eighths of an octave, near enough, and steps that hardly differ are
// equal.
uint32_t StepClass(const WorkerSnapshot& worker, const PlacementRequest& request) {
  const DecodeStepCost& cost = request.decode_step;
  const double context = static_cast<double>(worker.context_tokens + request.prompt_tokens);
  const double step_s = worker.slowness * (cost.step_s + cost.sequence_s * (worker.requests + 1) +
                                           cost.context_token_s * context);
  return std::bit_cast<uint32_t>(static_cast<float>(step_s)) >> 20;
}

auto DecodeCost(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return std::tuple_cat(
      DecodeStanding(worker, request),
      std::tuple(StepClass(worker, request), worker.requests, worker.id != request.session.decode,
                 -worker.blocks_available, worker.id));
}

bool MayDecode(const WorkerSnapshot& worker, const PlacementRequest& request) {
  return Usable(worker, Role::kDecode) && Holds(worker, request.prompt_tokens) &&
         !(request.only_others && Avoided(worker, request));
}

const WorkerSnapshot* ChooseDecode(std::span<const WorkerSnapshot> workers,
                                   const PlacementRequest& request) {
  const WorkerSnapshot* least = nullptr;
  decltype(DecodeCost(workers[0], request)) least_cost;
  for (const WorkerSnapshot& worker : workers) {
    if (!MayDecode(worker, request)) continue;
    const auto cost = DecodeCost(worker, request);
    if (least == nullptr || cost < least_cost) {
      least = &worker;
      least_cost = cost;
    }
  }
  if (least == nullptr || request.held.empty()) return least;
  const int32_t most_requests = least->requests + 1 + least->requests / kSlackShare;
  const uint32_t longest_step = StepClass(*least, request) + 1;
  const auto standing = DecodeStanding(*least, request);
  const WorkerSnapshot* chosen = least;
  int32_t most_held = Usable(HeldBy(least->id, request).memory_tokens, request);
  for (const WorkerSnapshot& worker : workers) {
    const int32_t held = Usable(HeldBy(worker.id, request).memory_tokens, request);
    if (held < most_held || held == 0 || worker.requests > most_requests) continue;
    if (!MayDecode(worker, request) || DecodeStanding(worker, request) != standing) continue;
    if (StepClass(worker, request) > longest_step) continue;
    if (held > most_held || DecodeCost(worker, request) < DecodeCost(*chosen, request)) {
      chosen = &worker;
      most_held = held;
    }
  }
  return chosen;
}

// The prefill workers that go with a decode worker, and the costs of a prompt there.
class PrefillChoice {
 public:
  PrefillChoice(std::span<const WorkerSnapshot> workers, const WorkerSnapshot& decode,
                const PlacementRequest& request)
      : workers_(workers), decode_(decode), request_(request) {
    Survey();
  }

  // Null: there is none.
  const WorkerSnapshot* Best() const {
    const WorkerSnapshot* best = nullptr;
    decltype(Cost(decode_)) least;
    for (const WorkerSnapshot& worker : workers_) {
      if (worker.role != Role::kPrefill) continue;
      // What waits there alone takes longer.
      if (best != nullptr && !std::get<0>(least) && !std::get<1>(least) &&
          QueueTime(worker) > std::get<2>(least)) {
        continue;
      }
      if (!Fits(worker)) continue;
      const auto cost = Cost(worker);
      if (best == nullptr || cost < least) {
        best = &worker;
        least = cost;
      }
    }
    return best;
  }

  // Seconds until the prompt's first token there. Without any measurement: tokens.
  double Time(const WorkerSnapshot& worker) const {
    return QueueTime(worker) + Own(worker).seconds;
  }
  double LocalTime() const {
    const double speed =
        decode_.prefill_tokens_per_s > 0 ? decode_.prefill_tokens_per_s : mean_speed_ / 2;
    return static_cast<double>(decode_.prompt_tokens_queued + LocalTokens()) / speed;
  }
  int32_t LocalTokens() const {
    return request_.prompt_tokens - Usable(HeldBy(decode_.id, request_).memory_tokens, request_);
  }
  int32_t ComputeTokens(const WorkerSnapshot& worker) const {
    return request_.prompt_tokens - Own(worker).cached;
  }
  std::optional<PrefixDonor> DonorFor(const WorkerSnapshot& worker) const {
    if (!Own(worker).fetched) return std::nullopt;
    return PrefixDonor{donor_->id, donor_held_};
  }

 private:
  // A prompt's own part of the time.
  struct OwnTime {
    double seconds = 0;
    int32_t cached = 0;
    bool fetched = false;
  };

  bool Fits(const WorkerSnapshot& worker) const {
    return Usable(worker, Role::kPrefill) && worker.fingerprint == decode_.fingerprint &&
           Holds(worker, request_.prompt_tokens);
  }

  // The mean speed, and who could hand the longest prefix over.
  void Survey() {
    double speeds = 0;
    int64_t measured = 0;
    for (const WorkerSnapshot& worker : workers_) {
      if (worker.role != Role::kPrefill) continue;
      if (worker.prefill_tokens_per_s > 0) {
        speeds += worker.prefill_tokens_per_s;
        ++measured;
      }
      const HeldPrefix held = HeldBy(worker.id, request_);
      const int32_t tokens = Usable(std::max(held.memory_tokens, held.disk_tokens), request_);
      if (tokens <= donor_held_ || worker.suspect || Avoided(worker, request_) || !Fits(worker)) {
        continue;
      }
      donor_ = &worker;
      donor_held_ = tokens;
    }
    measured_ = measured > 0;
    mean_speed_ = measured_ ? speeds / static_cast<double>(measured) : 1;
  }

  double QueueTime(const WorkerSnapshot& worker) const {
    return static_cast<double>(worker.prompt_tokens_queued) / Speed(worker);
  }

  double Speed(const WorkerSnapshot& worker) const {
    return worker.prefill_tokens_per_s > 0 ? worker.prefill_tokens_per_s : mean_speed_;
  }

  OwnTime Own(const WorkerSnapshot& worker) const {
    const HeldPrefix held = HeldBy(worker.id, request_);
    const bool expected = worker.id == request_.expected_at;
    const double speed = Speed(worker);
    OwnTime own;
    own.cached =
        Usable(std::max(held.memory_tokens, expected ? request_.expected_tokens : 0), request_);
    own.seconds = (request_.prompt_tokens - own.cached) / speed;
    if (const int32_t more = Usable(held.disk_tokens, request_) - own.cached; more > 0) {
      const double rate =
          worker.disk_bytes_per_s > 0 ? worker.disk_bytes_per_s : kAssumedDiskBytesPerS;
      TakeInstead(&own, more, speed, Seconds(worker, more, rate));
    }
    if (donor_ == nullptr || donor_ == &worker || !measured_) return own;
    // KV of another layout is not fetched: what is computed over it would not be what one process
    // computes.
    const int32_t more = donor_held_ - own.cached;
    if (more <= 0 || donor_->kv_layout != worker.kv_layout) return own;
    const double rate = worker.kv_bytes_per_s > 0 ? worker.kv_bytes_per_s : kAssumedKvBytesPerS;
    own.fetched = TakeInstead(&own, more, speed, Seconds(worker, more, rate));
    return own;
  }

  // So many tokens more are not computed but moved, where that is faster.
  static bool TakeInstead(OwnTime* own, int32_t tokens, double speed, double move_s) {
    const double compute_s = tokens / speed;
    if (move_s >= compute_s) return false;
    own->seconds -= compute_s - move_s;
    own->cached += tokens;
    return true;
  }

  static double Seconds(const WorkerSnapshot& worker, int32_t tokens, double bytes_per_s) {
    return planner::TransferSeconds(static_cast<double>(worker.kv_bytes_per_token), tokens,
                                    bytes_per_s);
  }

  std::tuple<bool, bool, double, bool, bool, int32_t, uint64_t, WorkerId> Cost(
      const WorkerSnapshot& worker) const {
    return {Avoided(worker, request_),
            worker.suspect,
            Time(worker),
            worker.kv_layout != decode_.kv_layout,
            worker.id != request_.session.prefill,
            worker.requests,
            worker.chosen,
            worker.id};
  }

  const std::span<const WorkerSnapshot> workers_;
  const WorkerSnapshot& decode_;
  const PlacementRequest& request_;
  const WorkerSnapshot* donor_ = nullptr;
  int32_t donor_held_ = 0;
  double mean_speed_ = 1;
  bool measured_ = false;
};

Refusal WhyNoDecodeWorker(std::span<const WorkerSnapshot> workers, int32_t prompt_tokens) {
  int connected = 0;
  int draining = 0;
  int64_t largest_tokens = 0;
  for (const WorkerSnapshot& worker : workers) {
    if (worker.role != Role::kDecode || !worker.connected) continue;
    ++connected;
    draining += worker.draining ? 1 : 0;
    if (!worker.draining) {
      largest_tokens = std::max(largest_tokens, worker.blocks_total * worker.block_tokens);
    }
  }
  if (connected == 0) {
    return {RefusalReason::kNoDecodeWorker,
            fmt::format("no decode worker is connected ({} workers known)", workers.size())};
  }
  if (draining == connected) {
    return {RefusalReason::kAllDraining,
            fmt::format("all {} connected decode workers are draining", connected)};
  }
  return {RefusalReason::kPromptTooLarge,
          fmt::format("prompt has {} tokens, but the largest decode worker's KV cache holds {}",
                      prompt_tokens, largest_tokens)};
}

}  // namespace

int64_t BlocksNeeded(int32_t block_tokens, int32_t prompt_tokens) {
  return (int64_t{prompt_tokens} + block_tokens) / block_tokens;
}

Placement Place(std::span<const WorkerSnapshot> workers, const PlacementRequest& request) {
  const WorkerSnapshot* const decode = ChooseDecode(workers, request);
  if (decode == nullptr) return WhyNoDecodeWorker(workers, request.prompt_tokens);
  const PrefillChoice choice(workers, *decode, request);
  Placed local{.decode = decode->id};
  local.compute_tokens = choice.LocalTokens();
  if (request.prompt_tokens <= request.local_prefill_tokens) return local;
  const WorkerSnapshot* const prefill = choice.Best();
  // Only prefill workers that fail are left: the decode worker is safer.
  if (prefill == nullptr || Avoided(*prefill, request) || prefill->suspect) return local;
  if (prefill->kv_layout == decode->kv_layout &&
      local.compute_tokens <= request.local_uncached_tokens &&
      local.compute_tokens < request.prompt_tokens && choice.LocalTime() < choice.Time(*prefill)) {
    return local;
  }
  return Placed{.decode = decode->id,
                .prefill = prefill->id,
                .donor = choice.DonorFor(*prefill),
                .compute_tokens = choice.ComputeTokens(*prefill)};
}

}  // namespace baton::router
