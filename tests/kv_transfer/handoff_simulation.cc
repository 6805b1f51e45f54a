#include "tests/kv_transfer/handoff_simulation.h"

#include <fmt/format.h>

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kMostEpochs = 3;
constexpr int kMostPutOff = 20;       // beginnings of an epoch, for want of blocks or of a process
constexpr uint64_t kFaultSteps = 80;  // faults come within so many happenings
// After the last beginning: every chunk of work as long as it may be, then every wait there is.
constexpr Duration kEverythingIsOver = milliseconds(2'500);
constexpr uint64_t kMostSteps = 20'000;

}  // namespace

const std::vector<Scenario>& Scenarios() {
  static const std::vector<Scenario> scenarios = {
      {"FairInOrder", {.in_order = true}, /*fair=*/true},
      {"FairWhateverTheOrder", {.longest_delay = milliseconds(15)}, /*fair=*/true},
      {"FairAmongForgeries", {.forgery = 30, .longest_delay = milliseconds(4)}, /*fair=*/true},
      {"LossAndRepetition", {.loss = 4, .duplication = 10, .longest_delay = milliseconds(40)}},
      {"Damage", {.damage = 6, .stuck_sends = 10}},
      {"CancelsAndRefusals",
       {.stuck_sends = 5, .cancels = 40, .refuses = 10, .never_answers = 5, .new_epochs = 20}},
      {"NewEpochs",
       {.forgery = 10, .longest_delay = milliseconds(40), .cancels = 20, .new_epochs = 60}},
      {"Crashes",
       {.forgery = 10, .longest_delay = milliseconds(30), .new_epochs = 20, .crashes = 50}},
      {"ShutdownsAndBrokenLinks",
       {.longest_delay = milliseconds(4), .cancels = 10, .link_breaks = 25, .shutdowns = 30}},
      {"EverythingAtOnce",
       {.loss = 2,
        .duplication = 4,
        .damage = 1,
        .forgery = 10,
        .longest_delay = milliseconds(40),
        .stuck_sends = 5,
        .cancels = 15,
        .refuses = 5,
        .never_answers = 3,
        .new_epochs = 20,
        .link_breaks = 10,
        .crashes = 20,
        .shutdowns = 10}},
  };
  return scenarios;
}

const Scenario& ScenarioOf(uint64_t seed) { return Scenarios()[seed % Scenarios().size()]; }

HandoffSimulation::HandoffSimulation(uint64_t seed, bool traced)
    : scenario_(ScenarioOf(seed)),
      stage_(seed, scenario_.adversity, /*pull=*/(Mix(seed) & 1) != 0, traced) {
  stage_.on_source_end = [this](Handoff& handoff) { OnSourceEnd(handoff); };
  for (int host = 0; host < kHosts; ++host)
    workers_[static_cast<size_t>(host)].emplace(stage_, host);
}

std::string HandoffSimulation::Run() {
  Agenda& agenda = stage_.agenda;
  const int favourite = static_cast<int>(agenda.Below(kHosts));
  for (size_t i = 1 + agenda.Below(3); i > 0; --i) {
    requests_.push_back({.source = agenda.Chance(80) ? favourite : 1 - favourite,
                         .blocks = 1 + static_cast<int32_t>(agenda.Below(4))});
    BeginEpochLater(requests_.size() - 1, agenda.Delay(milliseconds(10)));
  }
  PlanFaults();
  RunToTheEnd();
  CheckEnd(0, scenario_.fair && faults_.empty());
  if (agenda.Chance(12)) ProveThatBothServe();
  return stage_.violation;
}

void HandoffSimulation::RunToTheEnd() {
  Agenda& agenda = stage_.agenda;
  while (!agenda.empty() && stage_.violation.empty()) {
    agenda.RunNext();
    ++steps_;
    for (const PlannedFault& planned : faults_) {
      if (planned.step == steps_) Do(planned.fault);
    }
    if (agenda.now() - last_begin_ > kEverythingIsOver || steps_ > kMostSteps) {
      stage_.Violated(fmt::format("not over after {} steps and {:.1f} s", steps_,
                                  Seconds(agenda.now() - TimePoint{})));
    }
  }
}

// ---- what goes wrong ----

void HandoffSimulation::PlanFaults() {
  const auto plan = [this](int percent, Fault fault) {
    if (stage_.agenda.Chance(percent)) {
      faults_.push_back({1 + stage_.agenda.Below(kFaultSteps), fault});
    }
  };
  const Adversity& adversity = stage_.adversity;
  for (int i = 0; i < 3; ++i) {
    plan(adversity.cancels, Fault::kCancelSource);
    plan(adversity.cancels, Fault::kCancelTarget);
  }
  for (int i = 0; i < 2; ++i) {
    plan(adversity.crashes, Fault::kCrash);
    plan(adversity.link_breaks, Fault::kBreakLink);
  }
  plan(adversity.shutdowns, Fault::kShutdown);
}

void HandoffSimulation::Do(Fault fault) {
  Agenda& agenda = stage_.agenda;
  const int host = static_cast<int>(agenda.Below(kHosts));
  switch (fault) {
    case Fault::kCancelSource:
    case Fault::kCancelTarget: {
      if (stage_.handoffs.empty()) break;
      Handoff& handoff = stage_.handoffs[agenda.Below(stage_.handoffs.size())];
      if (fault == Fault::kCancelSource) {
        Worker(HostOf(handoff.source)).CancelSource(handoff);
      } else {
        Worker(HostOf(handoff.target)).CancelTarget(handoff);
      }
      break;
    }
    case Fault::kCrash:
    case Fault::kShutdown:
      if (!Worker(host).running()) break;
      fault == Fault::kCrash ? Worker(host).Crash() : Worker(host).Shutdown();
      agenda.After(agenda.Delay(milliseconds(40)), [this, host] { Worker(host).Start(); });
      break;
    case Fault::kBreakLink:
      agenda.Trace([] { return std::string("the link breaks"); });
      stage_.network.BreakLink();
      break;
  }
}

// ---- the router ----

void HandoffSimulation::BeginEpochLater(size_t request, Duration delay) {
  stage_.agenda.After(delay, [this, request] { BeginEpoch(request); });
}

void HandoffSimulation::BeginEpoch(size_t index) {
  Request& request = requests_[index];
  SimulatedWorker& source = Worker(request.source);
  SimulatedWorker& target = Worker(1 - request.source);
  if (request.epoch == kMostEpochs) return;
  Handoff& handoff = stage_.handoffs.emplace_back();
  handoff.attempt = {.request = {.high = 1, .low = index + 1}, .epoch = request.epoch + 1};
  if (!source.running() || !target.running() ||
      !source.Offer(handoff, request.blocks, target.address())) {
    stage_.handoffs.pop_back();
    if (++request.tries_put_off < kMostPutOff) {
      BeginEpochLater(index, stage_.agenda.Delay(milliseconds(30)));
    }
    return;
  }
  ++request.epoch;
  last_begin_ = stage_.agenda.now();
  if (stage_.agenda.Chance(stage_.adversity.new_epochs)) {
    BeginEpochLater(index, stage_.agenda.Delay(milliseconds(40)));
  }
}

void HandoffSimulation::OnSourceEnd(Handoff& handoff) {
  const bool succeeded = handoff.source_end.has_value() && handoff.source_end->ok();
  if (succeeded || stage_.agenda.Chance(30)) return;
  const size_t request = handoff.attempt.request.low - 1;
  if (requests_[request].epoch == handoff.attempt.epoch) {
    BeginEpochLater(request, stage_.agenda.Delay(milliseconds(20)));
  }
}

// ---- the end ----

void HandoffSimulation::ProveThatBothServe() {
  stage_.adversity = {.in_order = true};
  faults_.clear();
  const size_t before = stage_.handoffs.size();
  for (int source = 0; source < kHosts; ++source) {
    requests_.push_back({.source = source, .blocks = 3});
    BeginEpochLater(requests_.size() - 1, Duration{});
  }
  last_begin_ = stage_.agenda.now();
  RunToTheEnd();
  if (stage_.handoffs.size() < before + kHosts) stage_.Violated("no offer could be made any more");
  CheckEnd(before, /*all_succeed=*/true);
}

void HandoffSimulation::CheckEnd(size_t first_handoff, bool all_succeed) {
  for (size_t i = first_handoff; i < stage_.handoffs.size(); ++i) {
    const Handoff& handoff = stage_.handoffs[i];
    const std::string name = ToString(handoff.attempt);
    if (!handoff.SourceOver()) stage_.Violated("no SourceDone of " + name);
    if (!handoff.TargetOver()) stage_.Violated("no TargetDone of " + name);
    if (all_succeed && !(handoff.source_end.has_value() && handoff.source_end->ok())) {
      stage_.Violated("a fair handoff failed: " + name);
    }
  }
  for (int host = 0; host < kHosts; ++host) Worker(host).CheckIdle();
}

int HandoffSimulation::succeeded() const {
  int count = 0;
  for (const Handoff& handoff : stage_.handoffs) {
    count += handoff.target_end.has_value() && handoff.target_end->ok();
  }
  return count;
}

std::string HandoffSimulation::Trace() const {
  std::string text;
  for (const auto& [when, line] : stage_.agenda.trace()) {
    text += fmt::format("{:8.3f} ms  {}\n", 1e3 * Seconds(when - TimePoint{}), line);
  }
  return text;
}

}  // namespace baton::kv_transfer
