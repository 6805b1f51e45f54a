#include "planner/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "planner/numbers.h"

namespace baton::planner {
namespace {

constexpr int64_t kMostFlips = 8;  // at once, and half of the fleet

struct Split {
  int64_t prefill = 0, decode = 0;
};

// What splits of this fleet carry of this traffic within the objectives.
class Evaluator {
 public:
  Evaluator(const MeasuredWorker& worker, const Workload& traffic, const Objectives& objectives)
      : prompts_(PrefillQueue(worker, traffic)),
        batch_(worker, traffic),
        percentile_(objectives.percentile),
        ttft_s_(objectives.ttft_s > 0 ? objectives.ttft_s
                                      : 2 * prompts_.AlonePercentile(objectives.percentile)),
        itl_s_(objectives.itl_s > 0 ? objectives.itl_s : kInfinity) {}

  double ttft_s() const { return ttft_s_; }
  double itl_s() const { return itl_s_; }
  // Between tokens, with so many sequences in a worker.
  double StepSeconds(double sequences) const { return batch_.StepSeconds(sequences); }

  double Prefill(int64_t workers) {
    return Cached(&prefill_, workers,
                  [&] { return prompts_.MaxRate(workers, ttft_s_, percentile_); });
  }
  double Decode(int64_t workers) {
    return Cached(&decode_, workers, [&] { return batch_.MaxRate(workers, itl_s_, percentile_); });
  }
  double Goodput(const Split& split) {
    return std::min(Prefill(split.prefill), Decode(split.decode));
  }

  // Empty when both objectives can be met by some number of workers.
  std::string Unreachable() const {
    if (const double alone_s = prompts_.AlonePercentile(percentile_); alone_s > ttft_s_) {
      return fmt::format(
          "{:g}% of prompts take up to {:.3g} s without any waiting, more than the {:.3g} s "
          "for the first token",
          percentile_ * 100, alone_s, ttft_s_);
    }
    if (const double step_s = batch_.StepSeconds(1); step_s > itl_s_) {
      return fmt::format(
          "a step with one sequence takes {:.3g} s, more than the {:.3g} s between tokens", step_s,
          itl_s_);
    }
    return "";
  }

 private:
  template <typename Rate>
  double Cached(std::map<int64_t, double>* known, int64_t workers, Rate rate) {
    if (workers < 1) return 0;
    const auto found = known->find(workers);
    return found != known->end() ? found->second : ((*known)[workers] = rate());
  }

  const PromptQueue prompts_;
  const DecodeBatch batch_;
  const double percentile_, ttft_s_, itl_s_;
  std::map<int64_t, double> prefill_, decode_;
};

// Why this split may not be: empty if it may. `now` is the split before.
std::string Unsafe(const Split& split, const Split& now, double rate_per_s,
                   const ControlOptions& options, Evaluator* fleet) {
  const int64_t least_decode = now.prefill + now.decode <= 2 ? 1 : options.least_decode;
  if (split.prefill < now.prefill && split.prefill < options.least_prefill) {
    return fmt::format("{} prefill workers are the fewest", options.least_prefill);
  }
  if (split.decode < now.decode && split.decode < least_decode) {
    return fmt::format("{} decode workers are the fewest that survive the loss of one",
                       least_decode);
  }
  if (fleet->Goodput(now) < rate_per_s) return "";  // it is too late to be careful
  if (split.prefill < now.prefill && split.prefill > 1 &&
      fleet->Prefill(split.prefill - 1) < rate_per_s) {
    return fmt::format("of {} prefill workers one could not be lost: {} carry {:.3g} requests/s",
                       split.prefill, split.prefill - 1, fleet->Prefill(split.prefill - 1));
  }
  if (split.decode < now.decode && fleet->Decode(split.decode - 1) < rate_per_s) {
    return fmt::format("of {} decode workers one could not be lost: {} carry {:.3g} requests/s",
                       split.decode, split.decode - 1, fleet->Decode(split.decode - 1));
  }
  return "";
}

// The least busy ones of a role, by name where they are equal.
std::vector<std::string> LeastBusy(const ControlSnapshot& snapshot, bool prefill, int64_t count) {
  std::vector<const ControlWorker*> of_role;
  for (const ControlWorker& worker : snapshot.workers) {
    if (worker.usable && worker.prefill == prefill) of_role.push_back(&worker);
  }
  std::ranges::sort(of_role, {}, [](const ControlWorker* worker) {
    return std::pair(worker->requests, worker->name);
  });
  std::vector<std::string> names;
  for (const ControlWorker* worker : of_role) {
    if (std::ssize(names) < count) names.push_back(worker->name);
  }
  return names;
}

// What must be before anything is weighed. Empty if it is.
std::string NotNow(const ControlSnapshot& snapshot, const ControlOptions& options,
                   const Split& split) {
  for (const ControlWorker& worker : snapshot.workers) {
    if (worker.changing) return fmt::format("worker '{}' drains or changes its role", worker.name);
  }
  if (split.prefill < 1 || split.decode < 1) {
    return fmt::format("{} prefill and {} decode workers are usable: there is no ratio to change",
                       split.prefill, split.decode);
  }
  if (!(snapshot.uncertainty <= options.most_uncertainty)) {
    return fmt::format("what a step takes is known to {:.0f}% only, {:.0f}% are needed",
                       snapshot.uncertainty * 100, options.most_uncertainty * 100);
  }
  return "";
}

// Likewise without hurry.
std::string NotYet(const ControlSnapshot& snapshot, const ControlOptions& options,
                   const ControlState& state) {
  if (const double since_s = snapshot.now_s - state.changed_s; since_s < options.cooldown_s) {
    return fmt::format("{:.0f} s since the last change, of {:.0f} to wait", since_s,
                       options.cooldown_s);
  }
  return snapshot.traffic.ok() ? "" : std::string(snapshot.traffic.status().message());
}

// What is late already. Empty: nothing.
std::string Late(const ControlSnapshot& snapshot, const Evaluator& fleet) {
  if (snapshot.longest_wait_s > fleet.ttft_s()) {
    return fmt::format("{} wait, one for {:.3g} s", snapshot.waiting, snapshot.longest_wait_s);
  }
  double sequences = 0, workers = 0;
  for (const ControlWorker& worker : snapshot.workers) {
    if (!worker.usable || worker.prefill) continue;
    sequences += worker.requests;
    workers += 1;
  }
  const double gap_s = fleet.StepSeconds(sequences / std::max(1.0, workers));
  if (gap_s <= fleet.itl_s()) return "";
  return fmt::format("{:.0f} requests at {:.0f} decode workers, {:.3g} s between tokens", sequences,
                     workers, gap_s);
}

std::string Carries(const Split& split, Evaluator* fleet) {
  return fmt::format("{}:{} carries {:.3g} requests/s (prefill {:.3g}, decode {:.3g})",
                     split.prefill, split.decode, fleet->Goodput(split),
                     fleet->Prefill(split.prefill), fleet->Decode(split.decode));
}

// The best safe split that flips reach at once, and why a better one is not safe. More than
// `enough` is no better: of those that carry it, the one of the fewest flips.
struct Choice {
  Split split;
  std::string unsafe;
};
Choice BestFlip(const Split& now, double rate_per_s, double enough, const ControlOptions& options,
                Evaluator* fleet) {
  const int64_t most = std::clamp<int64_t>((now.prefill + now.decode) / 2, 1, kMostFlips);
  Choice best{.split = now};
  double best_goodput = std::min(enough, fleet->Goodput(now));
  for (int64_t step = 2; step <= 2 * most + 1; ++step) {
    const int64_t flips = step % 2 == 0 ? step / 2 : -(step / 2);  // 1, -1, 2, -2, ...
    const Split split{now.prefill + flips, now.decode - flips};
    if (split.prefill < 1 || split.decode < 1) continue;
    const double goodput = std::min(enough, fleet->Goodput(split));
    if (goodput <= best_goodput) continue;
    if (std::string why = Unsafe(split, now, rate_per_s, options, fleet); !why.empty()) {
      best.unsafe = std::move(why);
      continue;
    }
    best_goodput = goodput;
    best.split = split;
  }
  return best;
}

// How many workers more (1) or less (-1), after flips can do no more.
int64_t Growth(const Split& now, double rate_per_s, const ControlOptions& options, Evaluator* fleet,
               Split* grown) {
  const bool prefill_binds = fleet->Prefill(now.prefill) < fleet->Decode(now.decode);
  if (options.most_workers > now.prefill + now.decode && fleet->Goodput(now) < rate_per_s) {
    *grown =
        prefill_binds ? Split{now.prefill + 1, now.decode} : Split{now.prefill, now.decode + 1};
    return 1;
  }
  if (options.least_workers > 0 && options.least_workers < now.prefill + now.decode) {
    *grown =
        prefill_binds ? Split{now.prefill, now.decode - 1} : Split{now.prefill - 1, now.decode};
    if (grown->prefill >= 1 && grown->decode >= 1 &&
        fleet->Goodput(*grown) >= options.shrink_at * rate_per_s &&
        Unsafe(*grown, now, rate_per_s, options, fleet).empty()) {
      return -1;
    }
  }
  *grown = now;
  return 0;
}

// Counts how often in a row the same was better.
bool Confirmed(int64_t leaning, int64_t growing, const ControlOptions& options,
               ControlState* state) {
  const auto sign = [](int64_t value) { return (value > 0) - (value < 0); };
  const bool same = sign(leaning) == sign(state->leaning) && growing == state->growing;
  state->seen = same ? state->seen + 1 : 1;
  state->leaning = leaning;
  state->growing = growing;
  return state->seen >= options.confirm;
}

// It is taken to be done.
void Flip(const ControlSnapshot& snapshot, int64_t to_prefill, ControlState* state,
          ControlDecision* decision) {
  state->leaning = state->growing = state->seen = 0;
  state->changed_s = snapshot.now_s;
  decision->action = ControlAction::kFlip;
  decision->to_prefill = state->to_prefill = to_prefill > 0;
  decision->new_prefill = decision->prefill + to_prefill;
  decision->new_decode = decision->decode - to_prefill;
  decision->workers = LeastBusy(snapshot, !decision->to_prefill, std::abs(to_prefill));
}

// A flip at the first look, where requests are late and what came last is clearly too much.
bool Urgent(const ControlSnapshot& snapshot, const ControlOptions& options, const Split& now,
            ControlState* state, ControlDecision* decision) {
  if (!snapshot.newest.ok()) return false;
  if (snapshot.now_s - state->changed_s < std::min(options.urgent_cooldown_s, options.cooldown_s)) {
    return false;
  }
  Evaluator fleet(snapshot.worker, *snapshot.newest, options.objectives);
  const std::string late = Late(snapshot, fleet);
  if (late.empty() || !fleet.Unreachable().empty()) return false;
  const double comes = snapshot.newest->arrivals.per_s;
  const double wanted =
      comes + static_cast<double>(snapshot.waiting) / std::max(1.0, options.catch_up_s);
  const double goodput = fleet.Goodput(now);
  if (goodput >= wanted) return false;
  const Split next = BestFlip(now, wanted, kInfinity, options, &fleet).split;
  // Not back soon: hurry is no reason to waver.
  if (snapshot.now_s - state->changed_s < options.cooldown_s &&
      (next.prefill > now.prefill) != state->to_prefill) {
    return false;
  }
  const double better = fleet.Goodput(next);
  if (better < (1 + options.gain) * goodput || better <= 0) {
    return false;
  }
  decision->urgent = true;
  decision->rate_per_s = comes;
  decision->goodput_per_s = goodput;
  decision->new_goodput_per_s = better;
  decision->reason = fmt::format("{}; {}, {:.3g} come; {}", late, Carries(now, &fleet), comes,
                                 Carries(next, &fleet));
  Flip(snapshot, next.prefill - now.prefill, state, decision);
  state->traffic_since_s =
      snapshot.newest->arrival_s.empty() ? snapshot.now_s : snapshot.newest->arrival_s.front();
  return true;
}

}  // namespace

const char* ControlActionName(ControlAction action) {
  switch (action) {
    case ControlAction::kHold:
      return "hold";
    case ControlAction::kFlip:
      return "flip";
    case ControlAction::kGrow:
      return "grow";
    case ControlAction::kShrink:
      return "shrink";
  }
  return "";
}

ControlDecision Decide(const ControlSnapshot& snapshot, const ControlOptions& options,
                       ControlState* state) {
  Split now;
  for (const ControlWorker& worker : snapshot.workers) {
    if (worker.usable) ++(worker.prefill ? now.prefill : now.decode);
  }
  ControlDecision decision{.prefill = now.prefill,
                           .decode = now.decode,
                           .new_prefill = now.prefill,
                           .new_decode = now.decode};
  const auto hold = [&](std::string reason) {
    decision.reason = std::move(reason);
    state->leaning = state->growing = state->seen = 0;
    return decision;
  };
  if (std::string why = NotNow(snapshot, options, now); !why.empty()) return hold(std::move(why));
  if (Urgent(snapshot, options, now, state, &decision)) return decision;
  if (std::string why = NotYet(snapshot, options, *state); !why.empty()) {
    return hold(std::move(why));
  }
  Evaluator fleet(snapshot.worker, *snapshot.traffic, options.objectives);
  if (std::string why = fleet.Unreachable(); !why.empty()) return hold(std::move(why));
  const double rate_per_s = snapshot.traffic->arrivals.per_s;
  decision.rate_per_s = rate_per_s;
  decision.goodput_per_s = decision.new_goodput_per_s = fleet.Goodput(now);

  const Choice best = BestFlip(now, rate_per_s, options.enough * rate_per_s, options, &fleet);
  const double goodput = fleet.Goodput(best.split);
  const bool better = goodput >= (1 + options.gain) * decision.goodput_per_s && goodput > 0;
  Split next = best.split;
  int64_t growing = 0;
  if (!better || decision.goodput_per_s >= options.enough * rate_per_s) {
    next = now;
    growing = Growth(now, rate_per_s, options, &fleet, &next);
    if (growing == 0) {
      std::string reason = fmt::format("{}, {:.3g} come", Carries(now, &fleet), rate_per_s);
      if (decision.goodput_per_s >= options.enough * rate_per_s) {
        reason += ": enough";
      } else if (!best.unsafe.empty()) {
        reason += "; " + best.unsafe;
      } else {
        reason += fmt::format("; no change brings {:.0f}%", options.gain * 100);
      }
      return hold(std::move(reason));
    }
  }
  decision.new_prefill = next.prefill;
  decision.new_decode = next.decode;
  decision.new_goodput_per_s = fleet.Goodput(next);
  decision.reason =
      fmt::format("{}, {:.3g} come; {}", Carries(now, &fleet), rate_per_s, Carries(next, &fleet));
  const int64_t flips = growing == 0 ? next.prefill - now.prefill : 0;
  if (!Confirmed(flips, growing, options, state)) {
    decision.reason += fmt::format("; seen {} times of {}", state->seen, options.confirm);
    return decision;
  }
  if (growing == 0) {
    Flip(snapshot, flips, state, &decision);
    return decision;
  }
  state->leaning = state->growing = state->seen = 0;
  state->changed_s = snapshot.now_s;
  decision.to_prefill = next.prefill != now.prefill;
  decision.action = growing > 0 ? ControlAction::kGrow : ControlAction::kShrink;
  return decision;
}

}  // namespace baton::planner
